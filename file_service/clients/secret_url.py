"""A secret in the path of a URL, kept from everybody but the server.

aiohttp shows URLs in its errors, in the `repr` of its objects and to its tracing hooks, and asyncio logs errors that
nobody has fetched. So the URL that aiohttp knows has a placeholder, and the secret is put in its place only where the
request line is written.
"""

from typing import Any, cast

from aiohttp import ClientHandlerType, ClientMiddlewareType, ClientRequest, ClientResponse
from yarl import URL

PLACEHOLDER = "*secret*"  # of characters that a path may hold as they are (RFC 3986 section 3.3)


class SecretUrl:
    """`url`, with the secret in the request target alone."""

    def __init__(self, url: URL, secret: str) -> None:
        self._url, self._secret = url, secret

    @property
    def raw_path_qs(self) -> str:
        """The request target (RFC 9112 section 3.2.1)."""
        return self._url.raw_path_qs.replace(PLACEHOLDER, self._secret, 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._url, name)

    def __repr__(self) -> str:
        return repr(self._url)

    def __str__(self) -> str:
        return str(self._url)


class QuietResponse(ClientResponse):
    """A response whose `repr` is without its headers: a redirect repeats the path."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.url}) [{self.status}]>"


def with_secret(secret: str) -> ClientMiddlewareType:
    """A middleware that puts `secret`, which may hold nothing to be quoted, in the place of the placeholder."""

    async def reveal(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        request.url = cast(URL, SecretUrl(request.url, secret))
        return await handler(request)

    return reveal
