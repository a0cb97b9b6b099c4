"""How an object is cut into parts: pure arithmetic."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from file_service.storage.part_sizes import GIB, LARGEST, MIB, TIB, PartSizes, TooManyParts

PARTS = 10_000


def cut(sizes: PartSizes, length: int) -> list[int]:
    """The parts of an object of `length` bytes."""
    found: list[int] = []
    while sum(found) < length:
        found.append(min(sizes.size(len(found) + 1), length - sum(found)))
    return found


@pytest.mark.parametrize("part_size", [5 * MIB, 8 * MIB, 64 * MIB, 525 * MIB, 1 * GIB])
def test_a_stream_of_unknown_length_reaches_five_tebibytes(part_size: int) -> None:
    sizes = PartSizes(part_size)
    every = [sizes.size(number) for number in range(1, PARTS + 1)]
    assert sum(every) >= 5 * TIB
    assert all(one <= two for one, two in pairwise(every))
    assert every[0] <= part_size + MIB
    assert every[-1] <= LARGEST
    with pytest.raises(TooManyParts):
        sizes.size(PARTS + 1)


def test_short_streams_are_cut_small() -> None:
    assert max(cut(PartSizes(), GIB)) < 9 * MIB
    assert max(cut(PartSizes(), 10 * GIB)) < 24 * MIB


def test_no_part_is_larger_than_the_memory_allows() -> None:
    sizes = PartSizes(8 * MIB, largest=128 * MIB)
    every = [sizes.size(number) for number in range(1, PARTS + 1)]
    assert max(every) == 128 * MIB
    assert sum(every) > TIB, "what the default memory reaches"


@given(st.integers(1, 5 * TIB))
def test_a_known_length_makes_all_parts_as_large_as_it_takes(length: int) -> None:
    sizes = PartSizes(length=length)
    assert sizes.size(1) == sizes.size(PARTS) >= 8 * MIB
    assert sizes.size(1) * PARTS >= length
    assert sizes.size(1) == 8 * MIB or (sizes.size(1) - 1) * PARTS < length


def test_a_length_that_no_parts_can_hold_is_refused_at_once() -> None:
    PartSizes(largest=10 * MIB, length=10 * MIB * PARTS)
    with pytest.raises(TooManyParts, match="do not fit"):
        PartSizes(largest=10 * MIB, length=10 * MIB * PARTS + 1)


def test_equal_parts_are_equal_whatever_the_length() -> None:
    for length in (None, 1, 8 * MIB * PARTS):
        sizes = PartSizes(equal=True, length=length)
        assert {sizes.size(number) for number in range(1, PARTS + 1)} == {8 * MIB}
    with pytest.raises(TooManyParts):
        PartSizes(equal=True, length=8 * MIB * PARTS + 1)


@pytest.mark.parametrize(
    ("part_size", "smallest", "largest"),
    [
        (4 * MIB, 5 * MIB, LARGEST),
        (8 * MIB, 9 * MIB, LARGEST),
        (8 * MIB, 5 * MIB, 7 * MIB),
        (6 * GIB, 5 * MIB, LARGEST),
        (6 * GIB, 5 * MIB, 7 * GIB),
        (0, 0, LARGEST),
    ],
)
def test_sizes_that_cannot_be_are_refused(part_size: int, smallest: int, largest: int) -> None:
    with pytest.raises(ValueError, match="can be had"):
        PartSizes(part_size, smallest, largest)
