"""Which channels an event goes to, by the tenant's policy and the names that the workflow's ``notify`` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from wetread.core.channels import CHANNEL_PREFIX, HOUSE_SINK, Channel
from wetread.core.events import Event, EventType


class ChannelDirectory:
    """Channels by tenant and name. ``house_sink`` gets every event of every tenant; None: there is none."""

    def __init__(self, named: Callable[[str], Mapping[str, Channel]], house_sink: Channel | None = None) -> None:
        self._named = named
        self._house_sink = house_sink

    def receivers(self, event: Event) -> list[str]:
        """Return the ids of the channels that *event* goes to. A name that nobody configured reaches nobody."""
        named = self._named(event.tenant)
        wanted: list[str] = []
        if event.type is EventType.FINDING_POSITIVE:
            wanted = [str(name) for name in event.data.get("notify", ())]
        elif event.type is EventType.FINDING_ESCALATED and event.data["channel"]:
            wanted = [event.data["channel"]]
        found = [f"{CHANNEL_PREFIX}{name}" for name in dict.fromkeys(wanted) if name in named]
        return [*found, HOUSE_SINK] if self._house_sink is not None else found

    def channel(self, tenant: str, channel_id: str) -> Channel | None:
        """Return the channel of an id of ``receivers``; None when it is not configured any more."""
        if channel_id == HOUSE_SINK:
            return self._house_sink
        return self._named(tenant).get(channel_id.removeprefix(CHANNEL_PREFIX))
