"""CloudEvents 1.0 over HTTP to a sink (HTTP Protocol Binding 1.0.2), structured or binary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import orjson

from wetread.adapters.notify.webhook import HttpWebhookSender
from wetread.core.channels import SinkMode
from wetread.core.cloudevents import CONTENT_TYPE

_SAFE: Final = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""Characters that a header value holds as they are; all others are percent-encoded (binding 3.1.3.2)."""


class CloudEventsSink:
    """Posts events to sinks; deadline, no redirects and retries are those of webhooks, without their signature."""

    def __init__(self, http: HttpWebhookSender) -> None:
        self._http = http

    def send(self, url: str, mode: SinkMode, event: Mapping[str, Any]) -> int:
        """Deliver one event and return the HTTP status. Raises as ``HttpWebhookSender.send``."""
        headers, body = binary(event) if mode == "binary" else structured(event)
        return self._http.post(url, body, headers)


def structured(event: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the structured mode (binding 3.2): everything in the body."""
    return {"content-type": f"{CONTENT_TYPE}; charset=UTF-8"}, orjson.dumps(dict(event))


def binary(event: Mapping[str, Any]) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the binary mode (binding 3.1): attributes as ``ce-`` headers, the data as body."""
    attributes = {name: value for name, value in event.items() if name not in {"data", "datacontenttype"}}
    headers = {f"ce-{name}": quote(str(value), safe=_SAFE) for name, value in attributes.items()}
    headers["content-type"] = event["datacontenttype"]
    return headers, orjson.dumps(event["data"])
