"""nginx in front of a service: nothing buffered and HTTP/1.1 on both sides, as documented, or otherwise."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.process import free_port
from tests.support.raw import connection

START_SECONDS = 10.0
CONFIG = """
daemon off;
pid {folder}/pid;
events {{}}
http {{
    log_format passed "$request_method $request_uri";
    access_log {folder}/access.log passed;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream service {{ server 127.0.0.1:{upstream}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{
            proxy_pass http://service;
            proxy_http_version {version};
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_request_buffering off;
            proxy_buffering {buffering};
            proxy_limit_rate {rate};
        }}
    }}
}}
"""


@contextmanager
def nginx_before(
    upstream: int, folder: Path, *, version: str = "1.1", buffering: bool = False, rate: int = 0
) -> Iterator[str]:
    """The URL of an nginx that passes everything on to the loopback port `upstream`; skips where there is no nginx.

    It speaks HTTP `version` to the service. With `buffering` it takes answers in faster than its client does, `rate`
    bytes a second at most (0: any), and on disk if need be. The requests it took for such stand in access.log.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed")
    port, log = free_port(), folder / "error.log"
    answers = {"version": version, "buffering": "on" if buffering else "off", "rate": rate}
    (folder / "nginx.conf").write_text(CONFIG.format(folder=folder, port=port, upstream=upstream, **answers))
    with subprocess.Popen([program, "-p", folder, "-e", log, "-c", folder / "nginx.conf"]) as nginx:
        try:
            yield _listening(f"http://127.0.0.1:{port}", log)
        finally:
            nginx.terminate()


def _listening(url: str, log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with connection(url, timeout=1):
                return url
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"nginx did not start: {log.read_text()}") from None
            time.sleep(0.02)
