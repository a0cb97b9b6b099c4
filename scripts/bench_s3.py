"""Uploads and downloads through the service on an S3 server, beside rclone that talks to the same server directly.

The server is a Swift that is started here, or the one at `--endpoint`, whose keys are in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY; a bucket is made in it and left empty. Every round has one upload and one download of each, in
turns; the first round only warms up. The service is reached by curl, with a length and without one; rclone runs as it
comes. Everything that is downloaded is written to a file.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from botocore.config import Config
from botocore.session import Session

from scripts.bench import DD, cpu, curl, table
from scripts.bench_peers import Peer, peers, post, running
from tests.support.swift import KEY, USER, Swift

Note = Callable[[str, float], None]


@contextmanager
def bucket(endpoint: str | None) -> Iterator[tuple[str, str]]:
    """The endpoint and an empty bucket; the keys are in the environment."""
    with ExitStack() as stack:
        if endpoint is None:
            endpoint = stack.enter_context(Swift()).url
            os.environ.update(AWS_ACCESS_KEY_ID=USER, AWS_SECRET_ACCESS_KEY=KEY)
        name = f"bench-{uuid4().hex}"
        config = Config(s3={"addressing_style": "path"})
        store: Any = Session().create_client("s3", "us-east-1", endpoint_url=endpoint, config=config)
        store.create_bucket(Bucket=name)
        yield endpoint, name
        for found in store.list_objects_v2(Bucket=name).get("Contents", []):
            store.delete_object(Bucket=name, Key=found["Key"])
        store.delete_bucket(Bucket=name)


def rclone(endpoint: str) -> tuple[list[str], dict[str, str]]:
    """The command, and the environment in which `s3:` is the server."""
    told = {"TYPE": "s3", "PROVIDER": "Other", "ENV_AUTH": "true", "ENDPOINT": endpoint, "REGION": "us-east-1"}
    settings = {f"RCLONE_CONFIG_S3_{name}": value for name, value in told.items()}
    return ["rclone", "--config", os.devnull, "copyto"], {**os.environ, **settings}


def directly(blob: Path, name: str, endpoint: str, note: Note) -> None:
    """rclone, up and down."""
    command, environment = rclone(endpoint)
    target, gib = blob.with_suffix(".rclone"), blob.stat().st_size / (1 << 30)
    place = f"s3:{name}/rclone-{time.monotonic_ns()}"
    for what, source, sink in (("upload s/GiB", str(blob), place), ("download s/GiB", place, str(target))):
        start = time.monotonic()
        subprocess.run([*command, source, sink], check=True, env=environment)
        note(what, (time.monotonic() - start) / gib)
    target.unlink()


def through(peer: Peer, blob: Path, note: Note, *, chunked: bool) -> None:
    """curl and the service, up and down; the CPU seconds are the service's."""
    target, gib = blob.with_suffix(".curl"), blob.stat().st_size / (1 << 30)
    extra = ["-H", "Transfer-Encoding: chunked"] if chunked else []
    before = cpu(peer)
    seconds, link = curl(*extra, *post(peer.base, blob))
    note("upload s/GiB", seconds / gib)
    note("upload CPU s/GiB", (cpu(peer) - before) / gib)
    before = cpu(peer)
    seconds, _ = curl(link, output=target)
    note("download s/GiB", seconds / gib)
    note("download CPU s/GiB", (cpu(peer) - before) / gib)
    curl("-X", "DELETE", link)
    target.unlink()


def main() -> None:
    """Read the arguments, run, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024, help="MiB of the file")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--endpoint", help="a server that runs already")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where the files are")
    options = parser.parse_args()
    rows: dict[str, dict[str, list[float]]] = {"rclone copyto": {}, "file_service": {}, "file_service, no length": {}}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, bucket(options.endpoint) as (endpoint, name):
        blob = Path(folder) / "blob"
        random = [DD, "if=/dev/urandom", f"of={blob}", "bs=1M", f"count={options.size}"]
        subprocess.run(random, check=True, capture_output=True)
        peer = next(peers(durable=False))
        peer.environment |= {"FILE_SERVICE_STORAGE": "s3", "FILE_SERVICE_S3_BUCKET": name}
        peer.environment["FILE_SERVICE_S3_ENDPOINT_URL"] = endpoint
        with running(peer, Path(folder) / "service"):
            for number in range(options.rounds + 1):
                for row, results in rows.items():

                    def note(what: str, value: float, results: dict[str, list[float]] = results) -> None:
                        if number:  # noqa: B023 - called in this very round
                            results.setdefault(what, []).append(value)

                    if row == "rclone copyto":
                        directly(blob, name, endpoint, note)
                    else:
                        through(peer, blob, note, chunked="no length" in row)
    print(table(rows))


if __name__ == "__main__":
    main()
