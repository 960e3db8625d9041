"""Where a webhook may go: not into the network of the mesh, whatever a name resolves to at this moment."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_TRANSLATED: Final = ip_network("64:ff9b::/96")
"""IPv6 addresses that a NAT64 translates into IPv4 addresses."""


class AddressRefused(Exception):
    """The host is in a private network, or not a host at all."""


async def resolved(host: str, port: int, *, allow_private: bool) -> str:
    """Returns the address of a host to connect to.

    Args:
        host: a name or an address.
        port: to connect to.
        allow_private: whether the host may be in a private network or on this machine.

    Raises:
        OSError: the name does not resolve.
        AddressRefused: one of its addresses is not public.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = [ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
    if not allow_private and not all(is_public(each) for each in addresses):
        raise AddressRefused("its address is not public")
    return str(addresses[0])


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is one of the public internet, and not a translation of another."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address.sixtofour is not None or address.teredo is not None or address in _TRANSLATED:
            return False
    return address.is_global and not address.is_multicast
