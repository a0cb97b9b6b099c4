"""The image and the Compose file, as far as they can be held without an engine."""

import contextlib
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from file_service.settings import Settings
from tests.support.s3_server import SERVERS, Bucket

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
COMPOSE = ROOT / "docker-compose.yml"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def run(program: str, *arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which(program, path=path)
    if found is None:
        pytest.skip(f"{program} is not installed")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("POSTGRES", "MINIO", "S3_"))}
    return subprocess.run([found, *arguments], capture_output=True, text=True, check=False, env=inherited | environment)


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The services as Compose reads them: anchors, defaults and variables resolved."""
    return resolved()


def resolved(*options: str, **variables: str) -> dict[str, Any]:
    command: list[str | Path] = ["--file", COMPOSE, "--env-file", os.devnull, *options, "config", "--format", "json"]
    done = run("docker-compose", *command, POSTGRES_PASSWORD="secret", **variables)
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    return services


def dockerfile_health_check() -> list[str]:
    found = re.search(r"^HEALTHCHECK .*? CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert found
    return list(json.loads(found[1]))


@contextlib.contextmanager
def answering(statuses: dict[str, int]) -> Iterator[int]:
    """A server on the loopback port it yields, with one status for each path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses.get(self.path, 404))
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def healthy(check: list[str], port: int) -> bool:
    assert check[0] == "python"
    environment = os.environ | {"FILE_SERVICE_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, *check[1:]]
    return subprocess.run(command, check=False, env=environment, stderr=subprocess.DEVNULL).returncode == 0


def test_hadolint_has_nothing_to_say() -> None:
    done = run("hadolint", "--no-color", ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_does_not_run_as_root() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", final, re.MULTILINE) == ["10001:10001"]


def test_what_the_image_copies_is_in_the_build_context() -> None:
    context = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    copies = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for copy in copies for source in copy.split()}
    assert sources == context
    assert all((ROOT / source).exists() for source in sources)


def test_compose_wants_a_password() -> None:
    done = run("docker-compose", "--file", COMPOSE, "--env-file", os.devnull, "config", "--quiet")
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD" in done.stderr


def test_compose_migrates_a_healthy_database_and_then_serves(compose: dict[str, Any]) -> None:
    assert compose["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert compose["migrate"]["command"] == ["migrate"]
    assert compose["file-service"]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    addresses = {compose[name]["environment"]["FILE_SERVICE_DATABASE_URL"] for name in ("migrate", "file-service")}
    assert addresses == {"postgresql+asyncpg://file_service:secret@postgres/file_service"}


def test_compose_keeps_files_and_rows_on_volumes(compose: dict[str, Any]) -> None:
    targets = {name: [volume["target"] for volume in compose[name]["volumes"]] for name in ("postgres", "file-service")}
    assert targets == {"postgres": ["/var/lib/postgresql"], "file-service": ["/data"]}
    assert "FILE_SERVICE_DATA_DIR=/data" in DOCKERFILE


def test_compose_waits_longer_than_the_service_drains(compose: dict[str, Any]) -> None:
    service = compose["file-service"]
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > float(service["environment"]["FILE_SERVICE_DRAIN_TIMEOUT"])


def test_compose_has_an_object_store_for_those_who_ask(compose: dict[str, Any]) -> None:
    assert not {"s3", "bucket"} & compose.keys()
    assert compose["file-service"]["environment"]["FILE_SERVICE_STORAGE"] == "local"
    services = resolved("--profile", "s3", FILE_SERVICE_STORAGE="s3")
    serving, store = services["file-service"], services["s3"]
    assert serving["depends_on"]["bucket"]["condition"] == "service_completed_successfully"
    assert serving["environment"]["FILE_SERVICE_STORAGE"] == "s3"
    assert serving["environment"]["FILE_SERVICE_S3_ENDPOINT_URL"] == "http://s3:8333"
    assert "minio" not in store["image"]
    assert [volume["target"] for volume in store["volumes"]] == ["/data"]


def test_compose_takes_any_object_store_by_the_names_that_minio_made_common() -> None:
    chosen = {"S3_IMAGE": "minio/minio:x", "S3_COMMAND": "server /data", "MINIO_SERVER_URL": "http://elsewhere:9000"}
    keys = {"MINIO_ROOT_USER": "me", "MINIO_ROOT_PASSWORD": "mine"}
    services = resolved("--profile", "s3", **chosen, **keys)
    assert (services["s3"]["image"], services["s3"]["command"]) == ("minio/minio:x", ["server", "/data"])
    for name in ("s3", "bucket", "file-service"):
        environment = services[name]["environment"]
        assert (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]) == ("me", "mine")
    assert services["file-service"]["environment"]["FILE_SERVICE_S3_ENDPOINT_URL"] == "http://elsewhere:9000"


def test_no_object_store_is_open_to_a_password_that_everybody_knows() -> None:
    environment = resolved("--profile", "s3")["s3"]["environment"]
    assert environment["AWS_SECRET_ACCESS_KEY"] == environment["MINIO_ROOT_PASSWORD"] == "secret"


@pytest.mark.parametrize("name", SERVERS)
def test_compose_creates_the_bucket_once(name: str) -> None:
    server = SERVERS[name]()
    services = resolved("--profile", "s3", S3_BUCKET=f"b{uuid4().hex}", MINIO_SERVER_URL=server.url)
    bucket = services["bucket"]
    assert bucket["entrypoint"][0] == "python"
    with server.credentials():
        environment = {**os.environ, **bucket["environment"], **{k: os.environ[k] for k in KEYS}}
        for _ in range(2):
            subprocess.run([sys.executable, *bucket["entrypoint"][1:]], check=True, env=environment, timeout=30)
    created = Bucket(server, environment["FILE_SERVICE_S3_BUCKET"])
    created.put("a", b"a")
    assert created.sizes() == {"a": 1}


def test_containers_set_only_settings_that_exist() -> None:
    named = set(re.findall(r"FILE_SERVICE_([A-Z0-9_]+)", DOCKERFILE + COMPOSE.read_text()))
    assert named - {name.upper() for name in Settings.model_fields} == set()


@pytest.mark.parametrize("where", ["image", "compose"])
def test_a_health_check_tells_answers_from_failures(where: str, compose: dict[str, Any]) -> None:
    if where == "image":
        check, path = dockerfile_health_check(), "/health/live"
    else:
        check, path = compose["file-service"]["healthcheck"]["test"][1:], "/health/ready"
    with answering({path: 200}) as port:
        assert healthy(check, port)
    assert not healthy(check, port)
    with answering({path: 503}) as port:
        assert not healthy(check, port)
