"""The way out to other servers: only public addresses, looked at right before a socket connects to one.

Names are resolved by whoever owns them, and may resolve to something else a moment later; so what counts is the address
that a socket is about to connect to, for every connection anew. Lists of what is forbidden are easily bypassed (OWASP,
SSRF cheat sheet), so the lists here say what is allowed: global unicast that is no envelope around another address.
"""

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from file_service.errors import UrlRefused

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
NOBODY = "There is no public server at this address."  # the same for no such host: names inside are nobody's business
LOOKUP_SECONDS, LOOKUPS = 10.0, 4
CONNECT_SECONDS = 10.0
READ_AHEAD = 256 << 10  # bytes

# https://www.iana.org/assignments/ipv6-address-space: all global unicast that has been given out.
GLOBAL = IPv6Network("2000::/3")
# What the ipaddress module, in one version or another, takes for global although it leads back inside or elsewhere:
# https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
SPECIAL: tuple[Network, ...] = (
    IPv4Network("168.63.129.16"),  # the host of a virtual machine in Azure
    IPv4Network("192.0.0.0/24"),  # protocol assignments: the nearest gateway, and a cloud's metadata
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv6Network("2001::/23"),  # protocol assignments, Teredo (an envelope) among them
    IPv6Network("2002::/16"),  # 6to4, an envelope
    IPv6Network("3fff::/20"),  # documentation
)


def is_public(address: Address) -> bool:
    """Whether `address` lies outside, as far as an address can tell. Envelopes around IPv4 never do."""
    unicast = address in GLOBAL if isinstance(address, IPv6Address) else not address.is_multicast
    return unicast and address.is_global and not any(address in network for network in SPECIAL)


def is_own(address: Address) -> bool:
    """Whether this machine has `address`, which may be a public one: behind it are services that a firewall hides."""
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, suppress(OSError):
        probe.connect((str(address), 9))  # sends nothing, only chooses the address to send from (udp(7))
        return ip_address(probe.getsockname()[0]) == address
    return False


class Resolver(AbstractResolver):
    """getaddrinfo(3) in threads of its own: names whose servers let us wait must not keep databases from connecting."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, "resolve")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of `host`, ASCII as it is in a URL. Raises gaierror."""
        kind, flags = socket.SOCK_STREAM, socket.AI_ADDRCONFIG
        look = partial(socket.getaddrinfo, host.encode(), port, family=family, type=kind, flags=flags)
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = await asyncio.get_running_loop().run_in_executor(self._threads, look)
        except TimeoutError:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer") from None
        return [
            ResolveResult(hostname=host, host=str(where[0]), port=port, family=family_, proto=protocol, flags=0)
            for family_, _, protocol, _, where in found
        ]

    async def close(self) -> None:
        """Drop the lookups that have not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Outside:
    """What may be reached: public addresses that are not this machine's, and those in the networks `allowed`."""

    def __init__(self, allowed: Sequence[Network] = (), resolver: AbstractResolver | None = None) -> None:
        self._allowed = allowed
        self._resolver = resolver or Resolver()

    def may_reach(self, address: str) -> bool:
        """Whether a connection to this numeric address may be made."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped  # a socket connects to that
        return any(parsed in network for network in self._allowed) or (is_public(parsed) and not is_own(parsed))

    async def check(self, url: URL) -> None:
        """Raise `UrlRefused` when no address of the URL's host may be reached now; later it may be another one."""
        try:
            found = await self._resolver.resolve(url.raw_host or "", url.port or 0, socket.AF_UNSPEC)
        except OSError:
            found = []
        if not any(self.may_reach(each["host"]) for each in found):
            raise UrlRefused(NOBODY)

    def session(self) -> aiohttp.ClientSession:
        """A client that connects to what may be reached and to nothing else, and keeps nothing between requests."""
        connector = aiohttp.TCPConnector(
            socket_factory=self._socket, resolver=self._resolver, use_dns_cache=False, force_close=True
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            read_bufsize=READ_AHEAD,
        )

    async def aclose(self) -> None:
        """Let go of the resolver."""
        await self._resolver.close()

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """The hook that aiohttp calls for every socket, right before it connects it."""
        family, kind, protocol, _, where = address
        if not self.may_reach(str(where[0])):
            raise PermissionError
        return socket.socket(family, kind, protocol)
