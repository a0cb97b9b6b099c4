"""GET /metrics: what this process has done, as Prometheus reads it (text exposition format 0.0.4)."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest

METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))


class Metrics:
    """The counters of one process; several workers are several targets."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "status")
        self._requests = Counter("file_service_requests", "requests answered", labels, registry=self.registry)
        self._seconds = Counter("file_service_request_seconds", "time spent on them", labels, registry=self.registry)
        self._sent = Counter(
            "file_service_sent_bytes", "bytes of streamed answers, headers included", registry=self.registry
        )
        self._failures = Counter(
            "file_service_failures", "requests refused or failed", ("kind",), registry=self.registry
        )

    def answered(self, method: str, status: int, seconds: float, sent: int) -> None:
        """A request has got its answer."""
        method = method if method in METHODS else "other"  # clients may make up as many as they like
        self._requests.labels(method, status).inc()
        self._seconds.labels(method, status).inc(seconds)
        self._sent.inc(sent)

    def failed(self, kind: str) -> None:
        """A request was refused, or the service failed at it; `kind` is the error's name."""
        self._failures.labels(kind).inc()


METRICS = web.AppKey("metrics", Metrics)


async def metrics(request: web.Request) -> web.Response:
    """The counters as text."""
    text = generate_latest(request.app[METRICS].registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})
