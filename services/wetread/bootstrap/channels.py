"""Channels of the whole deployment from its settings: the mail server and the sink of all events."""

from __future__ import annotations

from wetread.adapters.notify.mail import MailServer
from wetread.core.channels import Channel
from wetread.core.errors import ConfigurationError
from wetread.settings import Settings


def house_sink(settings: Settings) -> Channel | None:
    """Return the sink that gets every event; None: there is none."""
    if settings.event_sink is None:
        return None
    return Channel(sink=settings.event_sink, mode=settings.event_sink_mode)


def mail_server(settings: Settings) -> MailServer | None:
    """Return the mail server; None: there is none. Raises ConfigurationError for a password that cannot be read."""
    if settings.smtp_host is None:
        return None
    password = ""
    if settings.smtp_password_file is not None:
        try:
            password = settings.smtp_password_file.read_text("utf-8").strip()
        except OSError as error:
            msg = f"the file of the mail password cannot be read: {error.strerror}"
            raise ConfigurationError(msg) from error
    return MailServer(
        host=settings.smtp_host,
        port=settings.smtp_port,
        sender=settings.smtp_from,
        security=settings.smtp_security,
        user=settings.smtp_user,
        password=password,
    )
