"""Images at http and https addresses of the public internet, never of a network that only this machine can reach."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, final
from urllib.parse import urljoin

import httpcore2

from vlmc.runtime.errors import InputError, one_line

Address = IPv4Address | IPv6Address
Allowed = Callable[[Address], bool]

REDIRECTS: Final = 3
SECONDS: Final = 15.0
_UNICAST = IPv6Network("2000::/3")
_CARRY_IPV4 = (IPv6Network("2002::/16"), IPv6Network("2001::/32"))  # 6to4 and Teredo: they may end in a private network
_FAILURES = (OSError, ValueError, TypeError, httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.UnsupportedProtocol)
_MOVED = {301, 302, 303, 307, 308}
_HEADERS = ((b"User-Agent", b"vlmc"), (b"Accept", b"image/*"), (b"Accept-Encoding", b"identity"), (b"Connection", b"close"))


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet: not private, loopback, link-local, multicast or reserved."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address not in _UNICAST or any(address in network for network in _CARRY_IPV4):
            return False
    return address.is_global and not address.is_multicast


async def fetch(url: str, most: int, seconds: float = SECONDS, allowed: Allowed = is_public) -> bytes:
    """Return what an address gives, at most `most` bytes within `seconds`, over at most `REDIRECTS` redirects.

    Raises:
        InputError: it is no http or https address, leads where it is not `allowed` to, gives no file, too large a one,
            or takes too long.
    """
    network = PublicNetwork(allowed)
    try:
        async with asyncio.timeout(seconds), httpcore2.AsyncConnectionPool(network_backend=network) as pool:
            for _ in range(REDIRECTS + 1):
                found = await _get(pool, url, most)
                if isinstance(found, bytes):
                    return found
                url = found
    except TimeoutError:
        raise InputError(f"the image at {_shown(url)} did not arrive within {seconds:g} seconds") from None
    except _FAILURES as error:
        raise InputError(f"the image at {_shown(url)} cannot be fetched: {one_line(error, 100)}") from None
    raise InputError(f"the image at {_shown(url)} is behind more than {REDIRECTS} redirects")


@final
class PublicNetwork(httpcore2.AsyncNetworkBackend):
    """Connects to allowed addresses alone. A name is looked up once, and what was checked is what is connected to."""

    def __init__(self, allowed: Allowed = is_public) -> None:
        self._allowed, self._network = allowed, httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        address = await self._look_up(host, port)
        return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)

    async def _look_up(self, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [ip_address(str(place[0]).partition("%")[0]) for *_, place in found]
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise InputError(f"{one_line(host, 100)} is no address of the public internet, where images may come from")
        return str(addresses[0])


async def _get(pool: httpcore2.AsyncConnectionPool, url: str, most: int) -> bytes | str:
    """Return the content, or the address that a redirect leads to."""
    async with pool.stream("GET", url, headers=list(_HEADERS)) as response:
        headers = {name.lower(): value for name, value in response.headers}
        if response.status in _MOVED and b"location" in headers:
            return urljoin(url, headers[b"location"].decode("latin-1"))
        if response.status != 200:
            raise InputError(f"the image at {_shown(url)} cannot be fetched: its server answers {response.status}")
        content = bytearray()
        async for piece in response.aiter_stream():
            content += piece
            if len(content) > most:
                raise InputError(f"the image at {_shown(url)} is too large: the limit is {most:,} bytes")
        return bytes(content)


def _shown(url: str) -> str:
    return one_line(url, 100)
