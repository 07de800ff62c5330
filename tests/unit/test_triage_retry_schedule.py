from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wetread.triage.retry_schedule import JITTER, RETRY_SECONDS, retry_wait


def test_the_schedule_starts_within_seconds_and_ends_after_more_than_a_day() -> None:
    assert RETRY_SECONDS[:5] == (5, 30, 120, 600, 3600)
    assert sum(RETRY_SECONDS) > 24 * 3600
    assert retry_wait(len(RETRY_SECONDS) + 1, "a") is None


@given(st.integers(1, len(RETRY_SECONDS)), st.text(max_size=8))
def test_a_wait_is_its_step_stretched_by_the_jitter_and_always_the_same(attempts: int, name: str) -> None:
    wait = retry_wait(attempts, name)
    assert wait is not None
    assert RETRY_SECONDS[attempts - 1] <= wait <= RETRY_SECONDS[attempts - 1] * (1 + JITTER)
    assert retry_wait(attempts, name) == wait


def test_receivers_spread() -> None:
    assert len({retry_wait(1, f"subscription-{n}") for n in range(50)}) == 50


def test_a_receiver_may_ask_for_a_longer_wait_only() -> None:
    assert retry_wait(1, "a", retry_after=900.0) == 900.0
    assert retry_wait(4, "a", retry_after=1.0) == retry_wait(4, "a")
