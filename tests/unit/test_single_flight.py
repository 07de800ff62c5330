"""Computed once, kept while there is room, failures passed on and not kept."""

from __future__ import annotations

import threading

import pytest

from wetread.gateway.singleflight import SingleFlight


def test_kept_results_are_not_computed_again() -> None:
    flight, calls = SingleFlight(100), []
    for _ in range(3):
        assert flight.get("a", lambda: calls.append(1) or b"x" * 10, len) == b"x" * 10
    assert (len(calls), flight.bytes) == (1, 10)


def test_least_recently_used_leaves_first() -> None:
    flight, calls = SingleFlight(50), []

    def ask(key: str) -> bytes:
        return flight.get(key, lambda: calls.append(key) or bytes(12), len)

    for key in "abcd":
        ask(key)
    ask("a")
    ask("e")
    assert flight.bytes <= 50
    calls.clear()
    ask("a")
    ask("b")
    assert calls == ["b"]


def test_a_large_result_is_given_but_not_kept() -> None:
    flight = SingleFlight(100)
    assert len(flight.get("a", lambda: bytes(26), len)) == 26
    assert flight.bytes == 0


def test_all_who_wait_get_the_one_result_or_its_failure() -> None:
    flight, gate, calls = SingleFlight(100), threading.Event(), []
    outcomes: list[object] = []

    def compute() -> bytes:
        calls.append(1)
        gate.wait(10)
        raise ValueError("once")

    def ask() -> None:
        try:
            outcomes.append(flight.get("k", compute, len))
        except ValueError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    while not calls:
        gate.wait(0.001)
    gate.set()
    for thread in threads:
        thread.join()
    # Who comes after the failure computes anew; who waited for it shared it.
    assert outcomes == ["once"] * 5
    assert flight.get("k", lambda: b"fine", len) == b"fine"


def test_a_failure_is_raised_to_the_one_who_computes() -> None:
    with pytest.raises(ZeroDivisionError):
        SingleFlight(1).get("k", lambda: 1 // 0, lambda _: 0)
