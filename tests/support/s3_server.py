"""S3 over the wire for tests: moto in a thread of this process, which is quick, and Swift, which is strict.

Each server is started when it is asked for first and runs until the process ends. moto checks neither signatures nor
digests and takes no part below 5 MiB but the last; Swift checks everything and takes parts of any size.
"""

import atexit
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock
from uuid import uuid4

from tests.support.swift import KEY, USER, Swift

REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """A server and how to get in."""

    name: str
    url: str
    access_key: str
    secret_key: str
    smallest_part: int

    @property
    def keys(self) -> dict[str, str]:
        """The variables in which a client finds the keys."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    @contextmanager
    def credentials(self) -> Iterator[None]:
        """The environment in which a client finds the keys."""
        with mock.patch.dict(os.environ, self.keys):
            yield

    def bucket(self) -> "Bucket":
        """A fresh bucket."""
        bucket = Bucket(self, f"bucket-{uuid4().hex}")
        bucket.client.create_bucket(Bucket=bucket.name)
        return bucket


@dataclass(frozen=True)
class Bucket:
    """A look past the storage: what is in its bucket, asked of the server itself. Blocks while it asks."""

    server: S3Server
    name: str

    @property
    def client(self) -> Any:
        """botocore's own client."""
        return _client(self.server)

    def sizes(self) -> dict[str, int]:
        """The objects and their sizes."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        return {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}

    def read(self, key: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def head(self, key: str) -> dict[str, Any]:
        """What HEAD says of an object."""
        head: dict[str, Any] = self.client.head_object(Bucket=self.name, Key=key)
        return head

    def put(self, key: str, content: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def uploads(self) -> list[tuple[str, str]]:
        """Key and id of every unfinished multipart upload."""
        found = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [(upload["Key"], upload["UploadId"]) for upload in found]

    def begin(self, key: str, **metadata: str) -> str:
        """Begin a multipart upload, as a process would that dies right after."""
        upload: str = self.client.create_multipart_upload(Bucket=self.name, Key=key, Metadata=metadata)["UploadId"]
        return upload

    def put_part(self, key: str, upload: str, number: int, content: bytes) -> None:
        """Upload a part."""
        self.client.upload_part(Bucket=self.name, Key=key, UploadId=upload, PartNumber=number, Body=content)

    def parts(self, key: str, upload: str) -> dict[int, int]:
        """The parts of an unfinished upload and their sizes."""
        found = self.client.list_parts(Bucket=self.name, Key=key, UploadId=upload).get("Parts", [])
        return {part["PartNumber"]: part["Size"] for part in found}

    def abort(self, key: str, upload: str) -> None:
        """Abort an upload, as a store does that keeps them for a day only."""
        self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload)


@cache
def moto() -> S3Server:
    """The quick one."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    atexit.register(server.stop)
    host, port = server.get_host_and_port()
    return S3Server("moto", f"http://{host}:{port}", "moto-access-key", "moto-secret-key", 5 << 20)


@cache
def swift() -> S3Server:
    """The strict one."""
    server = Swift()
    server.__enter__()
    atexit.register(server.__exit__, None, None, None)
    return S3Server("swift", server.url, USER, KEY, 1)


SERVERS = {"moto": moto, "swift": swift}


@cache
def _client(server: S3Server) -> Any:
    from botocore.config import Config
    from botocore.session import Session

    session = Session()
    session.set_credentials(server.access_key, server.secret_key)
    config = Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required")
    return session.create_client("s3", REGION, endpoint_url=server.url, config=config)
