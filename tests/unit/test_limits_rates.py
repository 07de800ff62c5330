"""Shares of tenants and the file that says them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wetread.bootstrap.rates import Rates
from wetread.bootstrap.tenants import load_tenants
from wetread.core.errors import ConfigurationError, TooManyRequests
from wetread.core.tenants import TenantFile, TenantPolicy, Tenants


def rates(now: list[float], **policy: object) -> Rates:
    named = {"north": TenantPolicy.model_validate(policy)}
    return Rates(Tenants(TenantFile(tenants=named)), clock=lambda: now[0])


def test_a_burst_then_the_rate_and_others_do_not_notice() -> None:
    now = [100.0]
    limited = rates(now, requests_per_second=2, burst=3)
    for _ in range(3):
        limited.enter("north", stream=False)
    with pytest.raises(TooManyRequests) as caught:
        limited.enter("north", stream=False)
    assert caught.value.retry_after == pytest.approx(0.5)
    for _ in range(1000):
        assert limited.enter("south", stream=False) is None
    now[0] += 0.5
    limited.enter("north", stream=False)
    with pytest.raises(TooManyRequests):
        limited.enter("north", stream=False)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine nothing is quick
@given(
    st.floats(0.5, 200),
    st.integers(1, 50),
    st.lists(st.floats(0, 0.5), min_size=1, max_size=60),
)
def test_never_more_than_the_burst_and_the_rate_together(rate: float, burst: int, pauses: list[float]) -> None:
    now = [0.0]
    limited = rates(now, requests_per_second=rate, burst=burst)
    admitted = 0
    for pause in pauses:
        now[0] += pause
        try:
            limited.enter("north", stream=False)
        except TooManyRequests as refused:
            assert 0 < refused.retry_after <= 1 / rate + 1e-9  # noqa: PT017 - not every try is refused
        else:
            admitted += 1
    assert admitted <= burst + rate * now[0] + 1e-6


def test_requests_and_streams_at_a_time_are_counted_apart() -> None:
    limited = rates([0.0], requests_at_once=2, streams_at_once=1)
    leaving = [limited.enter("north", stream=False) for _ in range(2)]
    stream = limited.enter("north", stream=True)
    for kind in (False, True):
        with pytest.raises(TooManyRequests) as caught:
            limited.enter("north", stream=kind)
        assert caught.value.http_status == 429
    for leave in (leaving[0], stream):
        assert leave is not None
        leave()
    assert limited.enter("north", stream=False)
    assert limited.enter("north", stream=True)


def test_named_tenants_stand_on_the_default(tmp_path: Path) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(
        "default: {requests_per_second: 5, burst: 9}\ntenants:\n  north: {burst: null, duplicates: keep_first}\n"
    )
    tenants = load_tenants(path)
    assert tenants.policy("elsewhere") == TenantPolicy(requests_per_second=5, burst=9)
    assert tenants.policy("north") == TenantPolicy(requests_per_second=5, duplicates="keep_first")
    assert load_tenants(None).policy("north") == TenantPolicy()
    path.write_text("")
    assert load_tenants(path).policy("north") == TenantPolicy()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tenants: {north: {speed: 1}}", "tenants.north.speed"),
        ("default: {requests_per_second: 0}", "requests_per_second"),
        ("default: {storage_bytes: -1}", "storage_bytes"),
        ("default: {duplicates: version}", "duplicates"),
        ("default: {takes: {sop_classes: [CT]}}", "not a UID"),
        ("default: {takes: {transfer_syntaxes: some}}", "transfer_syntaxes"),
        ("tenants: {North: {}}", "not a name of a tenant"),
        ("- a", "valid dictionary"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_file_that_makes_no_sense_is_an_error_at_the_start(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        load_tenants(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_tenants(tmp_path / "none.yaml")
