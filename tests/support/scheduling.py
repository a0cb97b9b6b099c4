"""pytest plugin: with `--dist loadfile` the tests of a file on one storage stay together, each storage on a worker of
its own if one is free; services that they share are started once.

The many quick tests of tests/http come last, so that no worker is left with minutes of slow ones at the end.
"""

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.places import PLACES

if TYPE_CHECKING:
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

STORAGE = re.compile(rf"[\[-]({'|'.join(PLACES)})[\]-]")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> "LoadFileScheduling | None":
    if config.getoption("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # it puts the files with few tests last, which are the slow ones
    from xdist.scheduler import LoadFileScheduling

    class ByFileAndStorage(LoadFileScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    return ByFileAndStorage(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: "/http/" in item.nodeid)


def group_of(nodeid: str) -> str:
    """The file of a test of tests/http and its storage; the file of any other."""
    file, _, test = nodeid.partition("::")
    found = STORAGE.search(test) if "/http/" in file else None
    return f"{file} on {found[1]}" if found else file
