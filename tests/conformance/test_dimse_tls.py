"""TLS on the DICOM port (PS3.15 B): versions, mutual authentication, certificates pinned to peers; dcmtk as client."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.dimse_support import Running, edge, write_peers
from tests.gateway_support import instance

from wetread.core.errors import ConfigurationError
from wetread.dimse.settings import TlsFiles
from wetread.dimse.tls import client_context, ends_of, server_context

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="NOT RUN: certificates are made with openssl")


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a server, two clients of the authority and a stranger."""
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    ca = folder / "ca"
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=authority", "-keyout", f"{ca}.key", "-out", f"{ca}.pem")
    for name in ("server", "client", "other"):
        at = folder / name
        names = folder / f"{name}.names"
        names.write_text("subjectAltName=IP:127.0.0.1\n")
        openssl("req", *key, "-subj", f"/CN={name}", "-keyout", f"{at}.key", "-out", f"{at}.csr")
        signing = ("-CA", f"{ca}.pem", "-CAkey", f"{ca}.key", "-CAcreateserial", "-days", "2", "-extfile", names)
        openssl("x509", "-req", "-in", f"{at}.csr", "-out", f"{at}.pem", *signing)
    for name, days in (("stranger", "2"), ("long", "90")):
        at = folder / name
        openssl("req", "-x509", *key, "-days", days, "-subj", "/CN=x", "-keyout", f"{at}.key", "-out", f"{at}.pem")
    return folder


@pytest.fixture(scope="module")
def mutual(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("edge")
    shown = ssl.PEM_cert_to_DER_cert((certificates / "client.pem").read_text())
    peers = write_peers(
        folder / "peers.yaml",
        ("ae: CT1", "addresses: [127.0.0.1]", f"certificate: '{hashlib.sha256(shown).hexdigest()}'"),
        ("ae: CT2", "addresses: [127.0.0.1]"),
    )
    tls = TlsFiles(certificates / "server.pem", certificates / "server.key", certificates / "ca.pem")
    with edge(folder, peers=peers, tls=tls, association_seconds=1.0) as running:
        yield running


def dcmtk(running: Running, certificates: Path, tool: str, *rest: object, who: str, calling: str = "CT1") -> str:
    secured = ("+tls", certificates / f"{who}.key", certificates / f"{who}.pem", "+cf", certificates / "ca.pem")
    result = running.dcmtk(tool, *secured, *map(str, rest), calling=calling)
    return str(result.stderr) if result.returncode else "ok"


@pytest.mark.server("dcmtk")
def test_dcmtk_stores_over_mutual_tls(mutual: Running, certificates: Path, tmp_path: Path) -> None:
    file = tmp_path / "one.dcm"
    file.write_bytes(instance(SOPInstanceUID="1.2.3.4"))
    assert dcmtk(mutual, certificates, "storescu", file, who="client") == "ok"
    with mutual.parts.database.read() as tx:
        assert len(mutual.parts.archive.instances(tx, "default", "1.2.3")) == 1


@pytest.mark.server("dcmtk")
def test_a_certificate_belongs_to_its_title(mutual: Running, certificates: Path) -> None:
    assert dcmtk(mutual, certificates, "echoscu", who="other", calling="CT2") == "ok"
    assert "Rejected" in dcmtk(mutual, certificates, "echoscu", who="other", calling="CT1")
    assert dcmtk(mutual, certificates, "echoscu", who="stranger", calling="CT2") != "ok"


def heard(running: Running, context: ssl.SSLContext | None) -> bool:
    """Return whether the edge answers a PDU at all."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 5))
        try:
            secured = context.wrap_socket(plain, server_hostname="127.0.0.1") if context else plain
            stack.enter_context(secured)
            secured.sendall(b"\x05\0\0\0\0\4\0\0\0\0")
            return bool(secured.recv(1)) and context is not None
        except OSError:
            return False


def test_without_tls_or_a_certificate_nothing_is_heard(mutual: Running, certificates: Path) -> None:
    authority = certificates / "ca.pem"
    ours = TlsFiles(certificates / "client.pem", certificates / "client.key", authority)
    assert heard(mutual, client_context(ours))
    assert not heard(mutual, ssl.create_default_context(cafile=str(authority)))
    assert not heard(mutual, None)


def test_the_meter_knows_when_the_certificates_end(mutual: Running, certificates: Path) -> None:
    def end(name: str) -> float:
        command = ["openssl", "x509", "-enddate", "-noout", "-in", str(certificates / name)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return ssl.cert_time_to_seconds(said.removeprefix("notAfter=").strip())

    assert mutual.meter.ends == {"certificate": end("server.pem"), "authorities": end("ca.pem")}
    chain = certificates / "chain.pem"
    chain.write_bytes((certificates / "long.pem").read_bytes() + (certificates / "server.pem").read_bytes())
    long = TlsFiles(certificates / "long.pem", certificates / "long.key")
    assert end("long.pem") > end("server.pem")
    assert ends_of(long) == {"certificate": end("long.pem")}
    assert ends_of(replace(long, certificate=chain)) == {"certificate": end("server.pem")}, "the first to end counts"


def test_versions_and_ciphers(certificates: Path) -> None:
    context = server_context(TlsFiles(certificates / "server.pem", certificates / "server.key"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert all("GCM" in cipher["name"] or cipher["protocol"] == "TLSv1.3" for cipher in context.get_ciphers())


def test_a_handshake_that_stands_still_holds_nobody_up(mutual: Running, certificates: Path) -> None:
    with contextlib.ExitStack() as open_ones:
        for _ in range(5):
            open_ones.enter_context(socket.create_connection(("127.0.0.1", mutual.port), 5))
        context = client_context(
            TlsFiles(certificates / "client.pem", certificates / "client.key", certificates / "ca.pem")
        )
        started = time.monotonic()
        plain = open_ones.enter_context(socket.create_connection(("127.0.0.1", mutual.port), 5))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            assert connection.version() in ("TLSv1.2", "TLSv1.3")
        assert time.monotonic() - started < 1.0


def test_files_that_are_none_are_a_configuration_error(certificates: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="TLS files"):
        server_context(TlsFiles(tmp_path / "none.pem", certificates / "server.key"))
    with pytest.raises(ConfigurationError, match="TLS files"):
        server_context(TlsFiles(certificates / "server.pem", certificates / "other.key"))
