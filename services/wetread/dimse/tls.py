"""TLS after the BCP 195 profiles of PS3.15 annex B: TLS 1.2 or newer, forward secrecy, authenticated ciphers."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import Final

from cryptography import x509

from wetread.core.errors import ConfigurationError
from wetread.dimse.settings import TlsFiles

_TLS_1_2_CIPHERS: Final = "ECDHE+AESGCM:DHE+AESGCM"
"""RFC 9325 4.2: ephemeral key exchange and AES-GCM only; the suites of TLS 1.3 are all of that kind."""


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of the listener. Raises ConfigurationError for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    _load(context, files)
    if files.authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TlsFiles | None) -> ssl.SSLContext:
    """Return the context for associations that we request: the peer's name is checked, ours shown.

    Configured authorities are the only ones trusted; without them those of the system are.
    """
    own_authorities = files is not None and files.authorities is not None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if own_authorities else ssl.create_default_context()
    _restrict(context)
    if files is not None:
        _load(context, files)
    return context


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_CIPHERS)


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.authorities is not None:
            context.load_verify_locations(files.authorities)
    except (OSError, ssl.SSLError) as error:
        msg = f"the TLS files of the DIMSE edge cannot be used: {type(error).__name__}"
        raise ConfigurationError(msg) from error


def ends_of(files: TlsFiles) -> dict[str, float]:
    """Return when the first certificate of each file ends, Unix seconds: our chain, and the authorities of peers."""
    named = {"certificate": files.certificate, "authorities": files.authorities}
    return {name: _first_end(path) for name, path in named.items() if path is not None}


def _first_end(path: Path) -> float:
    found = x509.load_pem_x509_certificates(path.read_bytes())
    return min(certificate.not_valid_after_utc.timestamp() for certificate in found)


def fingerprint(connection: object) -> str | None:
    """Return the SHA-256 of the certificate that the other side showed; None without one."""
    shown = connection.getpeercert(binary_form=True) if isinstance(connection, ssl.SSLSocket) else None
    return hashlib.sha256(shown).hexdigest() if shown else None
