"""Spans of time in words, as the page shows them (``worklist.js`` ticks them on by the same rules)."""

from __future__ import annotations


def span(seconds: float) -> str:
    """Return a span as ``48 s``, ``12 min``, ``3 h 05 min`` or ``2 d 4 h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    if hours < 24:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def age_text(received_at: float, now: float) -> str:
    """Return how long ago a study arrived."""
    return span(now - received_at)


def due_text(due_at: float, now: float) -> str:
    """Return when a study is due."""
    return f"due in {span(due_at - now)}" if due_at > now else f"overdue {span(now - due_at)}"


def offset_text(seconds: float) -> str:
    """Return a moment of the timeline relative to arrival."""
    if abs(seconds) < 60:
        return f"{seconds:+.1f} s"
    sign, whole = ("+" if seconds >= 0 else "-"), int(abs(seconds))
    return f"{sign}{whole // 60} min {whole % 60:02d} s" if whole < 3600 else sign + span(whole)
