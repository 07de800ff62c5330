"""Signed webhooks over HTTP: one POST, one deadline, no redirects, to a checked address."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Final

import httpx

from wetread.adapters.notify.addresses import AddressPolicy
from wetread.core import tracing
from wetread.core.errors import ComputationFailed, Gone, Unavailable
from wetread.core.ports import Clock
from wetread.core.webhook_signature import signature_headers

DEADLINE_SECONDS: Final = 10.0
_MAX_ANSWER_BYTES: Final = 64 * 1024
_MAX_RETRY_AFTER: Final = 24 * 3600.0


class HttpWebhookSender:
    """``WebhookSender`` on httpx. ``send`` blocks: call it from a worker thread, not from an event loop."""

    def __init__(
        self, clock: Clock, addresses: AddressPolicy, *, user_agent: str, deadline_seconds: float = DEADLINE_SECONDS
    ) -> None:
        self._clock = clock
        self._addresses = addresses
        self._user_agent = user_agent
        self._deadline = deadline_seconds

    def check(self, url: str) -> None:
        self._addresses.check(url)

    def send(self, url: str, secrets: Sequence[str], event_id: str, body: bytes, headers: Mapping[str, str]) -> int:
        signed = signature_headers(secrets, event_id, int(self._clock.now()), body)
        return self.post(url, body, {**headers, **signed})

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Deliver without a signature; else as ``send``."""
        parts, port, address = self._addresses.pin(url)
        host = parts.hostname or ""
        traceparent = tracing.current()
        trace = {} if traceparent is None else {"traceparent": traceparent}
        all_headers = {**headers, **trace, "host": parts.netloc, "user-agent": self._user_agent}
        target = httpx.URL(url).copy_with(host=address, port=port)
        status, retry_after = asyncio.run(self._post(target, host, all_headers, body))
        if 200 <= status < 300:
            return status
        if status == 410:
            msg = "the receiver answered 410 Gone"
            raise Gone(msg)
        msg = f"the receiver answered {status}"
        raise Unavailable(msg, retry_after=self._seconds(retry_after))

    async def _post(
        self, target: httpx.URL, host: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, str | None]:
        """Post within one deadline over everything: a receiver that trickles bytes cannot hold the sender."""
        try:
            async with (
                asyncio.timeout(self._deadline),
                httpx.AsyncClient(verify=self._tls, timeout=self._deadline, trust_env=False) as client,
                # The certificate is checked against the name although the connection goes to the pinned address.
                client.stream(
                    "POST", target, headers=dict(headers), content=body, extensions={"sni_hostname": host}
                ) as response,
            ):
                received = 0
                async for chunk in response.aiter_raw():
                    received += len(chunk)
                    if received > _MAX_ANSWER_BYTES:
                        break
                return response.status_code, response.headers.get("retry-after")
        except TimeoutError as error:
            msg = f"the receiver did not answer within {self._deadline:g} s"
            raise Unavailable(msg) from error
        except httpx.InvalidURL as error:
            reason = "url"
            raise ComputationFailed(reason, "the webhook URL cannot be used") from error
        except httpx.HTTPError as error:
            msg = f"the receiver cannot be reached ({type(error).__name__})"
            raise Unavailable(msg) from error

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _seconds(self, retry_after: str | None) -> float | None:
        """Return a Retry-After value (seconds or an HTTP date, RFC 9110 10.2.3) in seconds from now, bounded."""
        if retry_after is None:
            return None
        try:
            seconds = float(int(retry_after))
        except ValueError:
            try:
                moment = parsedate_to_datetime(retry_after)
            except ValueError:
                return None
            if moment.tzinfo is None:
                moment = moment.replace(tzinfo=UTC)
            seconds = moment.timestamp() - self._clock.now()
        return min(_MAX_RETRY_AFTER, max(0.0, seconds))
