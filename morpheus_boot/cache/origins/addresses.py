"""Addresses that no redirect may lead to: link-local ones, and those where clouds hand out credentials."""

import ipaddress
import socket
from typing import Final

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA_NAMES: Final = frozenset({"metadata", "metadata.google.internal"})
# AWS over IPv6, Alibaba, Oracle, Azure; the usual 169.254.169.254 is link-local.
_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16"))
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_forbidden(host: str) -> bool:
    """Whether a host is such an address, in whatever notation, or a name that stands for one.

    A name that can't be resolved is not: the request itself will say so.
    """
    if host.rstrip(".").lower() in _METADATA_NAMES:
        return True
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return False
    return any(_is_forbidden(str(each[4][0])) for each in found)


def _is_forbidden(text: str) -> bool:
    address: _Address = ipaddress.ip_address(text.partition("%")[0])
    inner = _embedded(address)
    return any(a.is_link_local or a in _METADATA for a in (address, inner) if a is not None)


def _embedded(address: _Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 one carries: mapped, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
