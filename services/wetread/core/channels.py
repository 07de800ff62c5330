"""Channels that a tenant names, and the chain by which an unacknowledged time-critical finding goes along them."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

CHANNEL_PREFIX: Final = "channel:"
"""A delivery to a channel stands under this and its name, where one to a webhook has the id of its subscription."""
HOUSE_SINK: Final = "channel:"
"""The sink of the whole deployment (K_SINK): the channel without a name."""

ALARM: Final = -1
"""Number of the step after the last channel: nobody has answered."""

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,253}")
Minutes = Annotated[float, Field(gt=0, le=24 * 60)]
SinkMode = Literal["structured", "binary"]


class Channel(BaseModel):
    """A way to reach people or a system: mail addresses, or the URL of a CloudEvents sink."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    email: tuple[str, ...] = ()
    sink: str | None = None
    mode: SinkMode = "structured"

    @field_validator("email")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(not _ADDRESS.fullmatch(address) for address in value):
            msg = "not a mail address"
            raise ValueError(msg)
        return value

    @field_validator("sink")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return None if value is None else sink_url(value)

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if bool(self.email) == (self.sink is not None):
            msg = "a channel is either email or sink"
            raise ValueError(msg)
        return self


class EscalationStep(BaseModel):
    """Goes to *channel* when nobody has acknowledged *after_minutes* after the notification."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_minutes: Minutes
    channel: str


class Escalation(BaseModel):
    """The chain of a tenant. The alarm goes to the event stream, the webhooks and the metrics."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: tuple[EscalationStep, ...] = ()
    alarm_after_minutes: Minutes

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        times = [step.after_minutes for step in self.steps] + [self.alarm_after_minutes]
        if times != sorted(set(times)):
            msg = "each step of an escalation is later than the one before it, the alarm last"
            raise ValueError(msg)
        return self

    def due(self, waited_seconds: float, taken: Collection[int]) -> list[int]:
        """Return the steps that are due and not in *taken*: positions in ``steps``, and ``ALARM``."""
        numbered = [(number, step.after_minutes) for number, step in enumerate(self.steps)]
        numbered.append((ALARM, self.alarm_after_minutes))
        return [number for number, after in numbered if waited_seconds >= after * 60 and number not in taken]


def sink_url(value: str) -> str:
    """Return an http(s) URL with a host. Raises ValueError: callers are validators."""
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.fragment:
        msg = "a sink is an http or https URL"
        raise ValueError(msg)
    return value
