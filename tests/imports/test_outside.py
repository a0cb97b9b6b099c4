"""What lies outside: addresses by table, the machine's own ones, names, and the socket that is never made."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from file_service.errors import UrlRefused
from file_service.service import outside as outside_module
from file_service.service.outside import Outside, Resolver, is_own, is_public
from tests.imports.conftest import eventually

FORBIDDEN = """
    0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
    169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.9 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
    198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::808:808
    64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1:: 2001:1::1 2001:2::1 2001:10::1 2001:20::1 2001:db8::1 2002:7f00:1::
    2002:808:808:: 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo fec0::1 ff02::1 ff0e::1
"""
PUBLIC = """
    1.1.1.1 8.8.8.8 172.15.0.1 172.32.0.1 100.128.0.1 ::ffff:8.8.8.8 2001:4860:4860::8888 2a00:1450:4001::1
"""
NOT_NUMERIC = ["", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "127.0.0.1 ", "[::1]", "1.1.1.1/0"]


@pytest.mark.parametrize("address", [*FORBIDDEN.split(), *NOT_NUMERIC])
def test_what_is_not_public_is_not_reached(address: str) -> None:
    assert not Outside().may_reach(address)


@pytest.mark.parametrize("address", PUBLIC.split())
def test_what_is_public_is_reached(address: str) -> None:
    assert Outside().may_reach(address)


@given(st.ip_addresses(v=4))
def test_an_address_in_an_envelope_is_never_public(inner: IPv4Address) -> None:
    """Transition mechanisms carry an IPv4 address that a router may unwrap (RFC 4291, 6052, 3056, 4380, 8215)."""
    number = int(inner)
    for base, shift in (("::", 0), ("::ffff:0:0:0", 0), ("64:ff9b::", 0), ("64:ff9b:1::", 0), ("2002::", 80)):
        assert not is_public(IPv6Address(int(IPv6Address(base)) | number << shift)), base
    teredo = int(IPv6Address("2001::")) | number << 64 | (number ^ 0xFFFFFFFF)
    assert not is_public(IPv6Address(teredo))


@given(st.ip_addresses())
def test_public_is_global_unicast_whatever_the_version_of_python_says(address: IPv4Address | IPv6Address) -> None:
    if is_public(address):
        assert not any(
            (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast, address.is_reserved)
        )
        assert isinstance(address, IPv4Address) or address in IPv6Network("2000::/3")


def test_networks_can_be_opened_and_nothing_beside_them() -> None:
    opened = Outside([IPv4Network("127.0.0.0/8"), IPv6Network("fd00::/8")])
    assert opened.may_reach("127.1.2.3")
    assert opened.may_reach("::ffff:127.0.0.1")
    assert opened.may_reach("fd00::1")
    assert opened.may_reach("8.8.8.8")
    assert not opened.may_reach("10.0.0.1")
    assert not opened.may_reach("::1")
    assert not opened.may_reach("169.254.169.254")


# The machine's own addresses


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_the_machine_knows_its_own_addresses(address: str) -> None:
    assert is_own(ip_network(address)[0])


def test_other_addresses_are_not_its_own() -> None:
    assert not is_own(IPv4Address("8.8.8.8"))
    assert not is_own(IPv6Address("2001:4860:4860::8888"))


@pytest.mark.skipif(os.geteuid() != 0 or not (shutil.which("unshare") and shutil.which("ip")), reason="root, iproute2")
@pytest.mark.parametrize("address", ["9.9.9.9", "2620:fe::fe"])
def test_a_public_address_of_this_machine_is_not_outside(address: str) -> None:
    """Behind it are services that a firewall hides from everybody else; in a network of its own, to have such a one."""
    code = f"from file_service.service.outside import Outside; print(Outside().may_reach('{address}'))"
    ask = f'{sys.executable} -c "{code}"'
    script = f"ip link set lo up && {ask} && ip addr add {address} dev lo nodad 2>/dev/null && {ask}"
    if ":" not in address:
        script = script.replace(" nodad", "")
    out = subprocess.run(["unshare", "-n", "sh", "-ec", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "False"]


# Names


class Names(AbstractResolver):
    """A resolver with answers of our choice."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [
            {"hostname": host, "host": each, "port": port, "family": kind(each), "proto": 0, "flags": 0}
            for each in self.addresses
        ]

    async def close(self) -> None:
        """There is nothing to close."""


def kind(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@pytest.mark.parametrize("addresses", [("8.8.8.8",), ("127.0.0.1", "8.8.8.8"), ("fe80::1%eth0", "2001:4860::1")])
async def test_one_public_address_makes_a_name_worth_a_try(addresses: tuple[str, ...]) -> None:
    await Outside((), Names(*addresses)).check(URL("http://name/"))


@pytest.mark.parametrize("addresses", [(), ("127.0.0.1",), ("10.0.0.1", "fd00::1", "::ffff:192.168.0.1")])
async def test_a_name_inside_and_no_name_at_all_are_refused_in_the_same_words(addresses: tuple[str, ...]) -> None:
    with pytest.raises(UrlRefused, match=r"^There is no public server at this address\.$"):
        await Outside((), Names(*addresses)).check(URL("http://name/"))


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    resolver = Resolver()
    yield resolver
    await resolver.close()


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "0177.0.0.1", "2130706433", "127.0.0.1"])
async def test_every_form_of_an_address_is_resolved_to_it(resolver: Resolver, host: str) -> None:
    assert "127.0.0.1" in [found["host"] for found in await resolver.resolve(host, 80)]


@pytest.mark.parametrize("host", ["a" * 64, "..", "a b", "", "%31", "127.0.0.1:80"])
async def test_a_name_that_cannot_be_is_an_ordinary_failure(resolver: Resolver, host: str) -> None:
    with pytest.raises(socket.gaierror):
        await resolver.resolve(host, 80)


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Name servers that do not answer for `slow`; the real thing would take the network."""
    answer, look = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == b"slow":
            answer.wait(20)
        return look(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(outside_module, "LOOKUP_SECONDS", 0.2)
    yield
    answer.set()


@pytest.mark.usefixtures("hanging")
async def test_names_that_take_for_ever_are_given_up_and_hold_nobody_else_up(resolver: Resolver) -> None:
    slow = [asyncio.create_task(resolver.resolve("slow")) for _ in range(40)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5):  # what databases and disks use
        assert await asyncio.to_thread(str) == ""
        assert await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
    failed = await asyncio.gather(*slow, return_exceptions=True)
    assert {type(error) for error in failed} == {socket.gaierror}


# Connections


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """On every address of this machine, of both families; `accept` raises BlockingIOError while nobody came."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening:
        listening.setblocking(False)
        yield listening


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "[::]", "localhost"])
async def test_a_session_does_not_connect_inside(host: str, listener: socket.socket, connected: list[str]) -> None:
    """Also when nobody has checked the URL before."""
    async with aclosing(Outside()) as outside, outside.session() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://{host}:{listener.getsockname()[1]}/")
    assert connected == []
    with pytest.raises(BlockingIOError):
        listener.accept()


async def test_without_the_guard_it_would(listener: socket.socket, connected: list[str]) -> None:
    async with aiohttp.ClientSession() as session:
        asking = asyncio.ensure_future(session.get(f"http://0.0.0.0:{listener.getsockname()[1]}/"))
        await eventually(lambda: connected)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    listener.settimeout(5)
    listener.accept()[0].close()


async def test_of_several_addresses_only_those_outside_are_connected_to(connected: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as allowed:
        names = Names("127.0.0.2", "::1", "10.0.0.1", "127.0.0.1", "169.254.169.254")
        opened = Outside([IPv4Network("127.0.0.1")], names)
        async with opened.session() as session:
            asking = asyncio.ensure_future(session.get(f"http://name:{allowed.getsockname()[1]}/"))
            await eventually(lambda: connected)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    assert set(connected) == {"127.0.0.1"}


async def test_the_environment_has_no_say(monkeypatch: pytest.MonkeyPatch, connected: list[str]) -> None:
    """A proxy would be asked to connect for us."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with Outside([IPv4Network("127.0.0.1")], Names("10.0.0.1")).session() as session:
        for scheme in ("http", "https"):
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"{scheme}://name/")
    assert connected == []
