"""Server-sent events (HTML 9.2) as a parser without input or output, and the place to resume from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from wetread.client.calls import API
from wetread.client.models import Event
from wetread.core.errors import Gone, WetreadError

READ_SECONDS: Final = 45.0
"""The server speaks at least every 15 s: after three silent spans the connection is dead."""
STREAM_PATH: Final = f"{API}/events/stream"


@dataclass
class EventStream:
    """Reads lines of one stream over any number of connections. ``cursor``: resume after this one; None: from now."""

    cursor: int | None
    types: Sequence[str] = ()
    retry_seconds: float = 2.0
    _kind: str = ""
    _data: list[str] = field(default_factory=list)
    _id: int | None = None

    def request(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return query and headers of the next connection."""
        self._kind, self._data, self._id = "", [], None
        params = {"types": ",".join(self.types)} if self.types else {}
        headers = {"Accept": "text/event-stream"}
        if self.cursor is not None:
            headers["Last-Event-ID"] = str(self.cursor)
        return params, headers

    def line(self, text: str) -> Event | None:
        """Take one line without its end; return the event that it completes.

        An event that was delivered before is left out. Raises Gone when the server's stream is not the one that the
        cursor came from (other data): what was known must be read afresh.
        """
        if not text:
            return self._complete()
        name, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdigit():
            self.retry_seconds = int(value) / 1000
        elif name == "id" and value.isdigit():
            self._id = int(value)
        return None

    def _complete(self) -> Event | None:
        kind, data, last = self._kind, "\n".join(self._data), self._id
        self._kind, self._data, self._id = "", [], None
        if kind == "reset":
            msg = "the server's event stream is not the one the cursor came from: read the worklist afresh"
            raise Gone(msg)
        if not data:
            if last is not None and self.cursor is None:
                self.cursor = last  # the first frame: resume from here even before the first event
            return None
        try:
            event = Event.model_validate_json(data)
        except ValidationError as error:
            msg = "the stream holds something that is no event"
            raise WetreadError(msg) from error
        if self.cursor is not None and event.cursor <= self.cursor:
            return None
        self.cursor = event.cursor
        return event
