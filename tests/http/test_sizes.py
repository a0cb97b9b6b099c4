"""Files of several parts: whole, in pieces, cut, and never half kept, whatever they are stored on."""

from collections.abc import Callable, Iterator
from random import Random
from urllib.parse import unquote

import pytest

from tests.support.doors import Door, every_door, raw
from tests.support.downloads import ask
from tests.support.places import PREFIX, BucketPlace
from tests.support.process import Service
from tests.support.raw import connection, exchange, reset
from tests.support.store import Store, eventually, stored

MIB = 1 << 20
PART = 5 * MIB  # the setting of the buckets
LARGE = Random(1).randbytes(2 * PART + 2 * MIB)


@pytest.fixture(scope="module")
def _unlimited(start: Callable[..., Service]) -> Service:
    return start(sweep_interval=3600, drain_timeout=0)


@pytest.fixture
def unlimited(_unlimited: Service) -> Iterator[Store]:
    """A service that takes files of any size; afterwards there is nothing that is not whole."""
    store = Store(_unlimited)
    yield store
    assert store.complaints() == ""
    store.holds(*(row.id for row in store.rows()))
    store.forget()


@every_door
@pytest.mark.parametrize("size", [PART - 1, PART, PART + 1, 2 * PART, len(LARGE)])
def test_a_file_of_any_size_comes_back(unlimited: Store, door: Door, size: int) -> None:
    id_ = stored(exchange(unlimited.url, bytes(door(LARGE[:size]))))
    assert unlimited.get(id_) == LARGE[:size]
    unlimited.holds(id_)
    assert ask(unlimited.url, id_, method=b"DELETE").status == 204
    unlimited.holds()


@pytest.mark.parametrize("first", [0, PART - 10, PART, 2 * PART - 1])
def test_a_range_may_lie_across_parts(unlimited: Store, first: int) -> None:
    id_ = stored(exchange(unlimited.url, bytes(raw(LARGE))))
    stop = first + MIB
    answer = ask(unlimited.url, id_, b"Range: bytes=%d-%d" % (first, stop - 1))
    assert (answer.status, answer.body) == (206, LARGE[first:stop])


@every_door
def test_a_large_upload_that_is_cut_leaves_no_part(unlimited: Store, door: Door) -> None:
    with connection(unlimited.url) as sock:
        sock.sendall(bytes(door(LARGE))[: 2 * PART + MIB])
        eventually(lambda: bool(unlimited.unfinished()), 10)
        reset(sock)
    unlimited.holds()


@pytest.mark.parametrize("name", ["naïve 100%.bin", "a" * 251 + ".txt", "é" * 125 + ".png"], ids=len)
def test_objects_say_which_files_they_are(unlimited: Store, name: str) -> None:
    """A long name has its beginning there: stores take 256 characters, and a name may need three for each byte."""
    place = unlimited.service.place
    assert isinstance(place, BucketPlace)
    for content in (b"small", LARGE):
        id_ = stored(exchange(unlimited.url, bytes(raw(content, name=name))))
        metadata = place.bucket.head(PREFIX + unlimited.key_of(id_))["Metadata"]
        assert metadata["id"] == id_
        kept = unquote(metadata["name"], errors="strict")
        assert kept == name if len(name) < 100 else name.startswith(kept) and len(kept) > 40
        assert unlimited.meta(id_)["name"] == name
