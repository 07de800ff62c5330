"""What a chain of reverse proxies says of a request: ``Forwarded`` (RFC 7239) or ``X-Forwarded-*``.

A client may send such headers as well. Only what trusted proxies have written counts: from the right, as far as the
addresses are those of trusted networks. What is not well formed, or is said twice, is not said.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

Family = Literal["x-forwarded", "forwarded"]
Network = IPv4Network | IPv6Network
Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values, as ASGI has them."""

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a grammar rule (RFC 9110 5.6.2)
_PAIR: Final = re.compile(
    rf'[ \t]*({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e])*)")[ \t]*'
)
_HOST: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]{0,253})|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
"""A name or an address without what RFC 3986 also allows and no server has: no userinfo, escapes or sub-delimiters."""
_PREFIX: Final = re.compile(r"(?:/[A-Za-z0-9._~-]+)+/?")
_NODE: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::[0-9A-Za-z._-]{1,16})?")
_SCHEMES: Final = frozenset({"http", "https"})
_LONGEST: Final = 8192
"""Characters of ``Forwarded``: more is no chain of proxies, and says nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The request as the outermost trusted proxy got it. ``address``: of the client; the rest None or "": not said.

    ``host``: with its port unless that is the scheme's own. ``prefix``: path that the proxy has taken away.
    """

    address: str
    scheme: str | None = None
    host: str | None = None
    port: int | None = None
    prefix: str = ""


class TrustedNetworks:
    """The networks whose proxies are believed, and the headers that they write."""

    def __init__(self, networks: Sequence[Network], family: Family = "x-forwarded") -> None:
        self._networks = tuple(networks)
        self._family = family
        self.trusts = lru_cache(maxsize=1024)(self._trusts)

    def _trusts(self, address: str) -> bool:
        found = _address(address)
        return found is not None and any(found in network for network in self._networks)

    def seen(self, peer: str, headers: Headers) -> Seen | None:
        """Return what the proxies say, None when the peer is not one of them."""
        if not self.trusts(peer):
            return None
        return self._standard(peer, headers) if self._family == "forwarded" else self._customary(peer, headers)

    def _customary(self, peer: str, headers: Headers) -> Seen:
        address = peer
        for node in reversed(_listed(headers, b"x-forwarded-for")):
            found = _node(node)
            if found is None:
                break
            address = found
            if not self.trusts(address):
                break
        scheme = (_only(headers, b"x-forwarded-proto") or "").lower()
        host, port = _host(_only(headers, b"x-forwarded-host"))
        prefix = _only(headers, b"x-forwarded-prefix") or ""
        return Seen(
            address,
            scheme if scheme in _SCHEMES else None,
            host,
            port or _port(_only(headers, b"x-forwarded-port")),
            _prefix(prefix),
        )

    def _standard(self, peer: str, headers: Headers) -> Seen:
        """Go from the element of the nearest proxy outwards while the one that wrote the next is trusted."""
        address, scheme, host, port = peer, None, None, None
        for element in reversed(forwarded_elements(", ".join(_values(headers, b"forwarded")))):
            # The outermost one that says it has seen what the client did.
            proto = element.get("proto", "").lower()
            scheme = proto if proto in _SCHEMES else scheme
            named, its_port = _host(element.get("host"))
            if named is not None:
                host, port = named, its_port
            found = _node(element.get("for", ""))
            if found is None:
                break  # hidden or unknown: nothing says who wrote what stands before it
            address = found
            if not self.trusts(address):
                break
        return Seen(address, scheme, host, port)


def forwarded_elements(text: str) -> list[dict[str, str]]:
    """Return the elements of ``Forwarded`` field values, first to last; none unless they are well formed (RFC 7239 4).

    Parameter names in lower case.
    """
    elements: list[dict[str, str]] = [{}]
    at, wanted = 0, True
    if len(text) > _LONGEST:
        return []
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text[at] in ",;":
            if text[at] == ",":
                elements.append({})
            at, wanted = at + 1, True
        else:
            pair = _PAIR.match(text, at)
            if pair is None or not wanted or pair[1].lower() in elements[-1]:
                return []
            value = pair[2] if pair[2] is not None else re.sub(r"\\(.)", r"\1", pair[3])
            elements[-1][pair[1].lower()] = value
            at, wanted = pair.end(), False
    return [element for element in elements if element]


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _listed(headers: Headers, name: bytes) -> list[str]:
    return [part.strip(" \t") for value in _values(headers, name) for part in value.split(",")]


def _only(headers: Headers, name: bytes) -> str | None:
    """Return the value of a header that is there once."""
    values = _values(headers, name)
    return values[0].strip(" \t") if len(values) == 1 else None


def _host(text: str | None) -> tuple[str | None, int | None]:
    """Return host and port of ``host[:port]``; nothing when it is anything else, such as two of them."""
    found = None if text is None else _HOST.fullmatch(text)
    if found is None or (found[1].startswith("[") and not isinstance(_address(found[1][1:-1]), IPv6Address)):
        return None, None
    port = _port(found[2])
    return (None, None) if found[2] and port is None else (found[1].lower(), port)


def _port(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[1-9][0-9]{0,4}", text) and int(text) <= 0xFFFF else None


def _prefix(text: str) -> str:
    """Return a path without a slash at its end, empty for what could lead elsewhere."""
    if not _PREFIX.fullmatch(text) or {".", ".."} & set(text.split("/")):
        return ""
    return text.rstrip("/")


def _node(text: str) -> str | None:
    """Return the address of a node, which may have a port; None for names, ``unknown`` and hidden ones."""
    bare = None if "%" in text else _address(text)  # a zone may be any text
    if bare is None:
        found = _NODE.fullmatch(text)
        bare = None if found is None else _address(found[1] or found[2])
    return None if bare is None else str(bare)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Return an address; IPv4 that arrives at an IPv6 socket is IPv4."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found
