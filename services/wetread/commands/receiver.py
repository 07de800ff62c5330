"""A webhook receiver on loopback that checks signatures and remembers when each event came: for demo and benchmarks."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from wetread.core.errors import NotAuthenticated
from wetread.core.webhook_signature import verify_signature


@dataclass(frozen=True, slots=True)
class Delivery:
    """One verified delivery. ``at``: Unix seconds when its last byte had been read."""

    at: float
    event_id: str
    event: dict[str, Any]


class WebhookReceiver:
    """Context manager: listens while open. ``deliveries`` holds what arrived with a good signature."""

    def __init__(self) -> None:
        self.secret = ""
        self.deliveries: list[Delivery] = []
        self.headers: list[dict[str, str]] = []
        """Of each delivery, names in lower case."""
        self.refused = 0
        self._changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self.send_response(receiver._accept(dict(self.headers.items()), body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                """Say nothing: request lines may name studies."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Where to send webhooks."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    def _accept(self, headers: dict[str, str], body: bytes) -> int:
        at = time.time()
        lowered = {name.lower(): value for name, value in headers.items()}
        with self._changed:
            try:
                event_id = verify_signature([self.secret], lowered, body, now=at)
            except NotAuthenticated:
                self.refused += 1
                return 401
            self.headers.append(lowered)
            self.deliveries.append(Delivery(at, event_id, json.loads(body)))
            self._changed.notify_all()
        return 204

    def first(self, study_uid: str, types: frozenset[str], *, timeout: float) -> Delivery | None:
        """Wait for the first delivery of one of *types* about a study; None after *timeout* seconds."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for delivery in self.deliveries:
                    if delivery.event.get("subject") == study_uid and delivery.event.get("type") in types:
                        return delivery
                if (left := deadline - time.monotonic()) <= 0:
                    return None
                self._changed.wait(left)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
