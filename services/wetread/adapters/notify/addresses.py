"""Which addresses a webhook may reach: the public ones, and private ones only where the operator says so.

Without this a tenant could point a webhook at the metadata service of the cloud or at a neighbour's database.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

from wetread.core.errors import ComputationFailed, ConfigurationError, Unavailable, Unprocessable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Sequence[str]]

LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
"""Allow-list of the embedded profile."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a host name. Raises Unavailable: name services come and go."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        msg = "the receiver's host name does not resolve"
        raise Unavailable(msg) from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressPolicy:
    """Public addresses, and those of the allow-list (CIDR networks)."""

    def __init__(self, allowed: Sequence[str] = (), resolver: Resolver = resolve) -> None:
        try:
            self._allowed: tuple[Network, ...] = tuple(ipaddress.ip_network(network) for network in allowed)
        except ValueError as error:
            msg = "the webhook allow-list holds something that is not a network"
            raise ConfigurationError(msg) from error
        self._resolver = resolver

    def check(self, url: str) -> None:
        """Raise Unprocessable for a URL that can be refused without asking the name service."""
        parts = split_url(url)
        literal = _literal(parts.hostname or "")
        if literal is not None and not self.permits(literal):
            code = "address_not_allowed"
            raise Unprocessable(code, "webhooks to private, loopback and link-local addresses need an allow-list entry")

    def pin(self, url: str) -> tuple[SplitResult, int, str]:
        """Return the URL's parts, its port and the one address to connect to, checked after resolution.

        The connection goes to that address and no other, so a name that changes its answer gains nothing.
        Raises ComputationFailed(address_not_allowed) or Unavailable.
        """
        parts = split_url(url)
        host = parts.hostname or ""
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        literal = _literal(host)
        addresses = [literal] if literal is not None else [ipaddress.ip_address(a) for a in self._resolver(host, port)]
        for address in addresses:
            if self.permits(address):
                return parts, port, str(address)
        reason = "address_not_allowed"
        raise ComputationFailed(reason, "the receiver's address is private and not on the allow-list")

    def permits(self, address: Address) -> bool:
        """Return whether a webhook may go to *address*."""
        return all(self._permits_one(candidate) for candidate in _meanings(address))

    def _permits_one(self, address: Address) -> bool:
        if any(address in network for network in self._allowed):
            return True
        return address.is_global and not address.is_multicast


def split_url(url: str) -> SplitResult:
    """Return the parts of an http(s) URL without credentials or control characters. Raises Unprocessable(url)."""
    code = "url"
    if any(ord(character) <= 32 or ord(character) == 127 for character in url):
        raise Unprocessable(code, "a webhook URL holds no blanks or control characters")
    try:
        parts = urlsplit(url)
        port_is_sound = parts.port is None or parts.port > 0
    except ValueError as error:
        raise Unprocessable(code, "the webhook URL cannot be parsed") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or not port_is_sound:
        raise Unprocessable(code, "a webhook URL is http:// or https:// with a host")
    if parts.username is not None or parts.password is not None:
        raise Unprocessable(code, "a webhook URL holds no user name or password: requests are signed instead")
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _meanings(address: Address) -> list[Address]:
    """Return the address and what it may stand for: IPv6 forms that carry an IPv4 address reach that address."""
    found: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]
        if address.sixtofour is not None:
            found.append(address.sixtofour)
        if address.teredo is not None:
            found.extend(address.teredo)
        if address in _NAT64:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found
