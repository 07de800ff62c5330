"""Mail and CloudEvents as they arrive: read by an SMTP server over TLS, and by an independent CloudEvents parser."""

from __future__ import annotations

import datetime as dt
import email
import email.policy
import http.server
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cloudevents.http import from_http
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.worklist_world import SetClock

from wetread.adapters.notify.addresses import LOOPBACK, AddressPolicy
from wetread.adapters.notify.mail import MailServer, SmtpMailer
from wetread.adapters.notify.sink import CloudEventsSink
from wetread.adapters.notify.webhook import HttpWebhookSender
from wetread.core.channels import SinkMode
from wetread.core.cloudevents import notification
from wetread.core.errors import ComputationFailed, Gone, Unavailable
from wetread.core.events import Event, EventType
from wetread.core.ruo import RUO_STATEMENT

FOUND = Event(
    id="e-1",
    type=EventType.FINDING_ESCALATED,
    tenant="default",
    subject="1.2.3",
    time=1_772_323_200.0,
    data={
        "detector": "ich", "version": "1.0.0", "code": "1386000", "scheme": "SCT", "meaning": "Blutung – akut",
        "score": 0.93, "text": "call Mrs DOE", "patient_name": "DOE^JANE", "waited_s": 600.0, "step": 0,
    },
)  # fmt: skip
CONTENT = notification(FOUND, public_url="https://reading.example")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "mail.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


class MailHost:
    """One SMTP session: answers as told, keeps what it was handed and whether that was encrypted."""

    def __init__(self, certificate: Path, *, offers_tls: bool, rcpt: bytes) -> None:
        self._certificate, self._offers_tls, self._rcpt = certificate, offers_tls, rcpt
        self.mail: bytes = b""
        self.encrypted = False
        self.commands: list[bytes] = []

    def serve(self, connection: socket.socket) -> None:
        if self._talk(connection):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
            with context.wrap_socket(connection, server_side=True) as secured:
                self.encrypted = True
                self._talk(secured, greet=False)

    def _talk(self, connection: socket.socket, *, greet: bool = True) -> bool:
        """Return whether the client wants to go on encrypted."""
        with connection.makefile("rwb") as stream:

            def say(line: bytes) -> None:
                stream.write(line + b"\r\n")
                stream.flush()

            if greet:
                say(b"220 mail")
            while line := stream.readline():
                verb = line.split()[0].upper()
                self.commands.append(verb)
                if verb == b"EHLO":
                    say(b"250-mail\r\n250 STARTTLS" if self._offers_tls and not self.encrypted else b"250 mail")
                elif verb == b"STARTTLS":
                    say(b"220 go")
                    return True
                elif verb == b"RCPT":
                    say(self._rcpt)
                elif verb == b"DATA":
                    say(b"354 go")
                    lines = []
                    while (part := stream.readline()) != b".\r\n":
                        lines.append(part)
                    self.mail = b"".join(lines)
                    say(b"250 kept")
                elif verb == b"QUIT":
                    say(b"221 bye")
                    break
                else:
                    say(b"250 ok")
        return False


@contextmanager
def mail_host(certificate: Path, *, offers_tls: bool = True, rcpt: bytes = b"250 ok") -> Iterator[tuple[MailHost, int]]:
    host = MailHost(certificate, offers_tls=offers_tls, rcpt=rcpt)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                try:
                    host.serve(connection)
                except OSError:
                    return  # the other side went away

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield host, listener.getsockname()[1]
        thread.join(5)


def mailer(port: int, certificate: Path, **options: Any) -> SmtpMailer:
    trusting = ssl.create_default_context(cafile=str(certificate))
    return SmtpMailer(MailServer("127.0.0.1", port, "wetread@hospital.example", **options), trusting)


def test_a_mail_says_what_where_and_that_it_is_research_and_nothing_of_the_patient(certificate: Path) -> None:
    with mail_host(certificate) as (host, port):
        mailer(port, certificate).send(["a@h.example", "b@h.example"], CONTENT)
    assert host.encrypted
    message = email.message_from_bytes(host.mail, policy=email.policy.default)
    text = message.get_content()
    assert message["Message-ID"] == "<e-1@wetread>"
    assert message["To"] == "a@h.example, b@h.example"
    assert message["Subject"] == "[wetread] ESCALATED: Blutung – akut (finding.escalated)"
    for part in (RUO_STATEMENT, "https://reading.example/studies/1.2.3", "0.9-1.0", "Not acknowledged for 10 min"):
        assert part in text
    assert "DOE" not in str(message)


def test_without_tls_nothing_is_said(certificate: Path) -> None:
    with mail_host(certificate, offers_tls=False) as (host, port), pytest.raises(Unavailable):
        mailer(port, certificate).send(["a@h.example"], CONTENT)
    assert b"MAIL" not in host.commands
    with mail_host(certificate) as (host, port), pytest.raises(Unavailable):
        SmtpMailer(MailServer("127.0.0.1", port, "w@h.example")).send(["a@h.example"], CONTENT)  # unknown authority
    assert b"MAIL" not in host.commands


@pytest.mark.parametrize(("answer", "error"), [(b"550 who", ComputationFailed), (b"451 later", Unavailable)])
def test_a_refusal_is_final_or_tried_again(certificate: Path, answer: bytes, error: type[Exception]) -> None:
    with mail_host(certificate, rcpt=answer) as (_host, port), pytest.raises(error):
        mailer(port, certificate).send(["a@h.example"], CONTENT)


@contextmanager
def sink(status: int = 202) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    received: list[tuple[dict[str, str], bytes]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.append((dict(self.headers), body))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_args: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/events", received
    finally:
        server.shutdown()
        server.server_close()


def events_sink() -> CloudEventsSink:
    return CloudEventsSink(HttpWebhookSender(SetClock(), AddressPolicy(LOOPBACK), user_agent="wetread-test"))


@pytest.mark.parametrize("mode", ["structured", "binary"])
def test_an_independent_parser_reads_both_modes(mode: SinkMode) -> None:
    with sink() as (url, received):
        assert events_sink().send(url, mode, CONTENT) == 202
    [(headers, body)] = received
    event = from_http(headers, body)
    assert (event["id"], event["type"], event["source"]) == ("e-1", "finding.escalated", "/tenants/default")
    assert (event["specversion"], event["subject"]) == ("1.0", "1.2.3")
    assert event["time"].startswith("2026-03-01T00:00:00")
    assert event.data["meaning"] == "Blutung – akut"
    assert event.data["ruo"] == RUO_STATEMENT
    assert event.data["score_band"] == "0.9-1.0"
    assert not {"text", "patient_name"} & event.data.keys()
    assert "webhook-signature" not in {name.lower() for name in headers}


@pytest.mark.parametrize(("status", "error"), [(500, Unavailable), (410, Gone)])
def test_a_sink_that_does_not_take_it(status: int, error: type[Exception]) -> None:
    with sink(status) as (url, _received), pytest.raises(error):
        events_sink().send(url, "structured", CONTENT)
