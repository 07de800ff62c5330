"""Typed settings of the DIMSE edge; every limit has its unit and its reason here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

DEFAULT_PORT: Final = 11112
"""The registered port of DICOM for processes that may not use 104 (PS3.8 9.1.1)."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. ``authorities`` set: peers have to show a certificate that one of them signed (mutual TLS)."""

    certificate: Path
    key: Path
    authorities: Path | None = None


@dataclass(frozen=True, slots=True)
class DimseSettings:
    """``ae_title``: ours. ``peers``: file of those who may associate; None: any, which is for loopback only."""

    ae_title: str = "WETREAD"
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    peers: Path | None = None
    tls: TlsFiles | None = None
    scratch: Path | None = None
    """Folder for objects that do not fit into memory (None: all stay in memory)."""
    max_associations: int = 32
    """Associations at a time; one more is rejected transiently. Each costs two threads."""
    max_pdu: int = 128 << 10
    """Largest PDU that a peer may send; larger ones save system calls on both sides."""
    idle_seconds: float = 60.0
    """A peer that says nothing for this long is aborted."""
    association_seconds: float = 15.0
    """From the connection to the association request, TLS handshake included (ARTIM, PS3.8 9.1.5)."""
    response_seconds: float = 60.0
    """Longest wait for a peer's response to what we send it."""
    drain_seconds: float = 8.0
    """At the end, running associations are given so long to finish."""
    object_bytes: int = 16 << 30
    """Size of one instance; larger ones are answered A700."""
    spool_bytes: int = 16 << 20
    """Instances beyond this size go to a scratch file instead of memory."""
    free_bytes: int = 256 << 20
    """With less room than this on the scratch disk, instances are answered A700 before they are stored."""
    pace_seconds: float = 10.0
    """A request that comes faster than a peer or tenant may send is held back so long at most, then refused."""
    find_matches: int = 10_000
    """Matches of one C-FIND; with more it ends in A700."""
    forward_seconds: float = 1.0
    """Pause between two looks for results to send."""
