"""Who may associate, as whom, and where we send to: the file of ``WETREAD_DIMSE_PEERS`` (YAML 1.2).

The association's credential decides its tenant: calling and called AE title, the address it comes from and, under
mutual TLS, its certificate. Nothing inside a data set ever does.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wetread.core.errors import ConfigurationError
from wetread.core.identifiers import DEFAULT_TENANT

Right = Literal["store", "find", "retrieve"]
ALL_RIGHTS: Final[tuple[Right, ...]] = ("store", "find", "retrieve")


def _ae_title(value: str) -> str:
    """Check an AE title (PS3.5 6.2: at most 16 printable characters, no backslash; spaces around do not count)."""
    title = value.strip(" ")
    if not 1 <= len(title) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
        msg = "an AE title is 1-16 printable ASCII characters without a backslash"
        raise ValueError(msg)
    return title


def _network(value: str) -> str:
    ipaddress.ip_network(value)
    return value


def _fingerprint(value: str) -> str:
    digits = value.replace(":", "").lower()
    if len(digits) != 64 or not set(digits) <= set("0123456789abcdef"):
        msg = "a certificate is named by the 64 hex digits of its SHA-256"
        raise ValueError(msg)
    return digits


AeTitle = Annotated[str, AfterValidator(_ae_title)]


class Peer(BaseModel):
    """One remote application entity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ae: AeTitle
    """Its AE title: calling when it associates, called when we do."""
    addresses: tuple[Annotated[str, AfterValidator(_network)], ...] = ()
    """Addresses or networks it may come from; none: it never associates with us."""
    called: AeTitle | None = None
    """The title it has to call us by; unset: ours. Several peers may share a calling title and differ in this."""
    certificate: Annotated[str, AfterValidator(_fingerprint)] | None = None
    """SHA-256 of the certificate it has to show (needs mutual TLS)."""
    tenant: str = Field(default=DEFAULT_TENANT, min_length=1)
    site: str = ""
    may: tuple[Right, ...] = ALL_RIGHTS
    associations: int | None = Field(default=None, ge=1)
    """How many it may have open at a time; unset: what its tenant and the deployment allow."""
    requests_per_second: float | None = Field(default=None, gt=0)
    """Instances, searches and retrievals; faster ones are held back, then refused."""
    object_bytes: int | None = Field(default=None, ge=1)
    """Largest instance that it may store."""
    host: str | None = None
    """Where it listens: makes it a destination of C-MOVE."""
    port: int = Field(default=104, ge=1, le=65535)
    tls: bool = False
    results: bool = False
    """Send it the objects that wetread writes (SR, SEG, SC)."""

    @model_validator(mode="after")
    def _results_need_a_place(self) -> Peer:
        if self.results and self.host is None:
            msg = "results are sent to a host: name one"
            raise ValueError(msg)
        return self

    def comes_from(self, address: str) -> bool:
        """Return whether the peer may come from *address*."""
        try:
            found = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in ipaddress.ip_network(each) for each in self.addresses)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    peers: list[Peer]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An association that is rejected: result, source and diagnostic of A-ASSOCIATE-RJ (PS3.8 9.3.4)."""

    result: int
    source: int
    diagnostic: int
    why: str


CALLING_UNKNOWN: Final = Refusal(1, 1, 3, "calling AE title not recognised")
CALLED_UNKNOWN: Final = Refusal(1, 1, 7, "called AE title not recognised")
NOT_ADMITTED: Final = Refusal(1, 1, 1, "address or certificate is not that of the peer")
CONGESTED: Final = Refusal(2, 3, 2, "local limit exceeded")
SHARE_USED: Final = Refusal(2, 3, 2, "the associations of this peer or its tenant are all open")


@dataclass(frozen=True, slots=True)
class PeerBook:
    """All peers. ``open_to_all``: nothing is configured; whoever reaches the port is let in as the default tenant."""

    ae_title: str
    peers: Sequence[Peer] = ()
    open_to_all: bool = False

    def reachable_from(self, address: str) -> bool:
        """Return whether any peer may come from *address* (asked before a byte is read)."""
        return self.open_to_all or any(peer.comes_from(address) for peer in self.peers)

    def admit(self, calling: str, called: str, address: str, certificate: str | None) -> Peer | Refusal:
        """Return the peer that an association is of, or why it is none."""
        calling, called = calling.strip(" "), called.strip(" ")
        if self.open_to_all:
            if called != self.ae_title:
                return CALLED_UNKNOWN
            try:
                return Peer(ae=calling, addresses=(address,))
            except ValidationError:
                return CALLING_UNKNOWN
        named = [peer for peer in self.peers if peer.ae == calling]
        if not named:
            return CALLING_UNKNOWN
        addressed = [peer for peer in named if (peer.called or self.ae_title) == called]
        if not addressed:
            return CALLED_UNKNOWN
        for peer in addressed:
            if peer.comes_from(address) and peer.certificate in (None, certificate):
                return peer
        return NOT_ADMITTED

    def destination(self, tenant: str, ae: str) -> Peer | None:
        """Return the peer of *tenant* that a C-MOVE names, if it has a place to send to."""
        ae = ae.strip(" ")
        return next((p for p in self.peers if p.tenant == tenant and p.ae == ae and p.host is not None), None)

    @property
    def result_destinations(self) -> list[Peer]:
        """The peers that get results."""
        return [peer for peer in self.peers if peer.results]


def load_peers(path: Path | None, ae_title: str, *, mutual_tls: bool = False) -> PeerBook:
    """Return the peers of a file; without one, everybody. Raises ConfigurationError that names the fault."""
    try:
        title = _ae_title(ae_title)
    except ValueError as error:
        msg = f"WETREAD_DIMSE_AE_TITLE: {error}"
        raise ConfigurationError(msg) from error
    if path is None:
        return PeerBook(title, open_to_all=True)
    try:
        content = _File.model_validate(YAML(typ="safe").load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ConfigurationError(msg) from error
    except (YAMLError, OSError, UnicodeDecodeError) as error:
        msg = f"{path.name}: cannot be read as YAML: {type(error).__name__}"
        raise ConfigurationError(msg) from error
    if not mutual_tls and any(peer.certificate for peer in content.peers):
        msg = f"{path.name}: a certificate can only be asked for with WETREAD_DIMSE_TLS_AUTHORITIES"
        raise ConfigurationError(msg)
    seen: set[tuple[str, str]] = set()
    for peer in content.peers:
        if peer.host is not None and (peer.tenant, peer.ae) in seen:
            msg = f"{path.name}: two places to send to share an AE title and a tenant"
            raise ConfigurationError(msg)
        if peer.host is not None:
            seen.add((peer.tenant, peer.ae))
    return PeerBook(title, tuple(content.peers))
