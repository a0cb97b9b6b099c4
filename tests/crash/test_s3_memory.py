"""What all uploads to an object store hold together stays within FILE_SERVICE_S3_MEMORY, however many there are.

At full size, with 20 uploads of 5 GiB: tests/soak/s3_memory.py.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.transfers import MIB, forget_peak, peak, sparse, upload, upload_at_once, upload_in_chunks
from tests.support.process import Service
from tests.support.s3_sink import KEYS, sink

UPLOADS = 8
BUDGET = 32 * MIB
EACH = 4 * MIB  # of a connection

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak")


@pytest.mark.parametrize("send", [upload, upload_in_chunks])
def test_many_uploads_share_the_memory_for_parts(
    send: Callable[..., str], spawn: Callable[..., Service], tmp_path: Path
) -> None:
    with sink() as settings:
        service = spawn(**settings, s3_memory=BUDGET, s3_part_size=5 * MIB, command=KEYS)
        upload(service, sparse(tmp_path / "small", 12 * MIB))
        idle = forget_peak(service)
        upload_at_once(service, sparse(tmp_path / "large", 96 * MIB), UPLOADS, send)
        assert peak(service) - idle < BUDGET + UPLOADS * EACH
        assert service.terminate() == 0
