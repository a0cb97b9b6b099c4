"""The table of storages: what it names is there, and everything else runs on each of them."""

import re
from pathlib import Path

import pytest

from tests.http.storages import ONLY, SELDOM, storages_of, with_database
from tests.support.places import PLACES
from tests.support.scheduling import group_of

MODULES = {path.stem: path.read_text() for path in Path(__file__).parent.glob("test_*.py")}
NAMED = [name for _, names in ONLY.values() for name in names]


def test_what_is_named_is_there() -> None:
    tests = {
        name for text in MODULES.values() for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)
    }
    assert {*NAMED}.union(*SELDOM.values()) <= tests | MODULES.keys()
    assert len({*NAMED}) == len(NAMED)


def test_a_test_that_is_not_named_runs_on_every_storage() -> None:
    assert storages_of("test_upload", "test_new") == ["local", "s3-moto"]
    assert storages_of("test_records", "test_new") == ["local"]
    assert storages_of("test_records", "test_new", ["s3-moto"]) == ["s3-moto"]
    assert storages_of("test_forms", "test_new") == ["local", "memory", "s3-moto"]
    assert storages_of("test_sizes", "test_new") == [*PLACES]
    assert storages_of("test_upload", "test_new", [*PLACES]) == [*PLACES]
    assert storages_of("test_s3_redirect", "test_new", ["memory", "s3-swift"]) == ["s3-swift"]


def test_both_databases_are_tried_on_a_disk_and_one_elsewhere() -> None:
    pairs = {
        (storage, name) for storage in PLACES for name in ("sqlite", "postgresql") if with_database(storage, [name])
    }
    assert pairs >= {("local", "sqlite"), ("local", "postgresql")}
    assert sorted(storage for storage, _ in pairs - {("local", "sqlite")}) == sorted(PLACES)
    assert with_database("memory", ["memory", "raw"])


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/http/test_a.py::test_b[s3-moto-local.txt]", "tests/http/test_a.py on s3-moto"),
        ("tests/http/test_a.py::test_b[sqlite-local-1]", "tests/http/test_a.py on local"),
        ("tests/http/test_a.py::test_b[memory]", "tests/http/test_a.py on memory"),
        ("tests/http/test_a.py::test_b", "tests/http/test_a.py"),
        ("tests/storage/test_a.py::test_b[local]", "tests/storage/test_a.py"),
    ],
)
def test_a_file_and_a_storage_stay_together(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group
