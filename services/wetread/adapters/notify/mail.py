"""Notifications by mail (SMTP, RFC 5321), encrypted unless the operator says otherwise; no patient data in them."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any, Final, Literal

from wetread.core.errors import ComputationFailed, Unavailable
from wetread.core.ruo import RUO_STATEMENT

DEADLINE_SECONDS: Final = 10.0
Security = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in. ``starttls`` and ``tls`` never fall back to plain text."""

    host: str
    port: int
    sender: str
    security: Security = "starttls"
    user: str = ""
    password: str = ""


class SmtpMailer:
    """Sends one notification as one mail. Blocks: call it from a worker thread."""

    def __init__(self, server: MailServer, tls: ssl.SSLContext | None = None) -> None:
        self._server = server
        self._tls = tls or ssl.create_default_context()

    def send(self, addresses: Sequence[str], event: Mapping[str, Any]) -> None:
        """Send *event* (``cloudevents.notification``). Raises Unavailable for what may be retried, ComputationFailed.

        The Message-ID is the event's: a mail that is sent again after a crash is recognised as the same.
        """
        message = mail_of(event, self._server.sender, addresses)
        try:
            with self._connect() as smtp:
                if self._server.user:
                    smtp.login(self._server.user, self._server.password)
                smtp.send_message(message, self._server.sender, list(addresses))
        except smtplib.SMTPResponseException as error:
            msg = f"the mail server answered {error.smtp_code}"
            if error.smtp_code >= 500:
                raise ComputationFailed("mail_refused", msg) from error
            raise Unavailable(msg) from error
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted({code for code, _text in error.recipients.values()})
            msg = f"the mail server refused every address: {', '.join(map(str, codes))}"
            if all(code >= 500 for code in codes):
                raise ComputationFailed("mail_refused", msg) from error
            raise Unavailable(msg) from error
        except (smtplib.SMTPException, OSError) as error:
            msg = f"the mail server cannot be used ({type(error).__name__})"
            raise Unavailable(msg) from error

    def _connect(self) -> smtplib.SMTP:
        host, port = self._server.host, self._server.port
        if self._server.security == "tls":
            return smtplib.SMTP_SSL(host, port, timeout=DEADLINE_SECONDS, context=self._tls)
        smtp = smtplib.SMTP(host, port, timeout=DEADLINE_SECONDS)
        if self._server.security == "starttls":
            try:
                smtp.starttls(context=self._tls)
            except BaseException:
                smtp.close()
                raise
        return smtp


def mail_of(event: Mapping[str, Any], sender: str, addresses: Sequence[str]) -> EmailMessage:
    """Return the mail of a notification: what was found, how sure, where to look, and the research-use statement."""
    data = event["data"]
    what = str(data.get("meaning") or data.get("detector") or event["type"])
    urgent = "ESCALATED: " if event["type"] == "finding.escalated" else ""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = ", ".join(addresses)
    message["Subject"] = f"[wetread] {urgent}{what} ({event['type']})"
    message["Date"] = format_datetime(datetime.fromisoformat(event["time"]).astimezone(UTC))
    message["Message-ID"] = f"<{event['id']}@wetread>"
    message["Auto-Submitted"] = "auto-generated"
    lines = [f"{event['type']}: {what}"]
    if data.get("code"):
        lines.append(f"Code: {data['code']} ({data.get('scheme', '')})")
    if data.get("detector"):
        lines.append(f"Detector: {data['detector']} {data.get('version', '')}")
    if data.get("score_band"):
        lines.append(f"Score band: {data['score_band']}")
    if data.get("waited_s") is not None:
        lines.append(f"Not acknowledged for {float(data['waited_s']) / 60:.0f} min")
    lines += ["", f"Open the study: {data['link']}", "", RUO_STATEMENT, ""]
    message.set_content("\n".join(lines))
    return message
