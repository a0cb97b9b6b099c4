"""Imports over TLS: who the other server is gets proved, whatever scheme the way there began with."""

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from tests.imports.conftest import Importer, kept
from tests.imports.upstream import Upstream, upstream_server
from tests.support.process import Service

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with key and certificate of 127.0.0.1, for which nobody vouches but itself."""
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=upstream", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(path), "-out", f"{path}.crt"]
    subprocess.run(["openssl", "req", *kind, *subject, *files], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
async def secure(certificate: Path) -> AsyncIterator[Upstream]:
    """Another server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with upstream_server(ssl=context) as server:
        yield server


@pytest.fixture
async def trusting(
    spawn: Callable[..., Service], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Importer]:
    """A service on a system that has the certificate among its own."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    async with aiohttp.ClientSession() as client:
        yield Importer(spawn(import_allow="127.0.0.1").url, client)


async def test_schemes_may_change_on_the_way(trusting: Importer, secure: Upstream, upstream: Upstream) -> None:
    upstream.says(lambda visit: visit.redirect(f"{secure.url}/2", 308), "/1")
    secure.says(lambda visit: visit.redirect(f"{upstream.url}/3", 301), "/2")
    upstream.says(lambda visit: visit.redirect(f"{secure.url}/4", 303), "/3")
    record = await trusting.run(f"{upstream.url}/1")
    assert (record["state"], record["error"]) == ("done", None)
    assert await trusting.content(record) == b"hello"
    assert [len(secure.heads), len(upstream.heads)] == [2, 2]


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_neither_scheme_leads_inside(
    trusting: Importer, secure: Upstream, upstream: Upstream, scheme: str
) -> None:
    async with upstream_server("127.0.0.2") as inner:
        to = inner.url.replace("http", scheme)
        for server in (secure, upstream):
            record = await trusting.run(server.says(lambda visit: visit.redirect(to)))
            assert (record["state"], record["error"]) == ("failed", "There is no public server at this address.")
        assert inner.heads == []


async def test_a_server_that_does_not_prove_who_it_is_is_not_asked(
    importer: Importer, secure: Upstream, tmp_path: Path
) -> None:
    record = await importer.run(secure.url)
    error = "The other server's certificate does not prove who it is."
    assert (record["state"], record["error"]) == ("failed", error)
    assert secure.heads == []
    assert kept(tmp_path / "data") == []


async def test_a_certificate_of_another_server_proves_nothing(
    trusting: Importer, certificate: Path, spawn: Callable[..., Service]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    service = spawn(import_allow="127.0.0.0/8", data_dir=certificate.parent / "data")
    async with upstream_server("127.0.0.3", context) as other:
        record = await Importer(service.url, trusting._client).run(other.url)
    assert record["error"] == "The other server's certificate does not prove who it is."
