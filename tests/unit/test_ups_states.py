"""The UPS state machine against the standard's own table, cell by cell, and as a Hypothesis state machine."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from wetread.core.errors import WorkitemStateError
from wetread.core.ups import (
    Lock,
    UpsState,
    change_state,
    check_update,
    request_cancel,
    same_lock,
    transaction_hash,
)

S, P, D, X = UpsState.SCHEDULED, UpsState.IN_PROGRESS, UpsState.COMPLETED, UpsState.CANCELED

# PS3.4 table CC.1.1-2, typed in from the standard: columns SCHEDULED, IN PROGRESS, COMPLETED, CANCELED. A state:
# the transition. "C3xx": failure. "B30x": warning. Two states separated by "|": final state requirements met | not.
TABLE = {
    ("IN PROGRESS", True): ["IN PROGRESS", "C302", "C300", "C300"],
    ("IN PROGRESS", False): ["C301", "C301", "C301", "C301"],
    ("SCHEDULED", True): ["C303", "C303", "C303", "C303"],
    ("SCHEDULED", False): ["C303", "C303", "C303", "C303"],
    ("COMPLETED", True): ["C310", "COMPLETED|C304", "B306", "C300"],
    ("COMPLETED", False): ["C301", "C301", "C301", "C301"],
    ("CANCELED", True): ["C310", "CANCELED|C304", "C300", "B304"],
    ("CANCELED", False): ["C301", "C301", "C301", "C301"],
}
CANCEL_ROW = ["IN PROGRESS>CANCELED", "tell", "C311", "B304"]
COLUMNS = [S, P, D, X]
HTTP = {"C300": 409, "C301": 400, "C302": 409, "C303": 400, "C304": 409, "C310": 409, "C311": 409}


def cell(wanted: str, right: bool, current: UpsState, met: bool) -> str:
    """Return what the table says."""
    return TABLE[wanted, right][COLUMNS.index(current)].split("|")[0 if met else -1]


def answer(wanted: str, lock: Lock, current: UpsState, met: bool) -> tuple[str, int]:
    """Return what the code does, in the words of the table, and the HTTP status of a refusal."""
    try:
        ruling = change_state(current, UpsState(wanted), lock, final_state_met=met)
    except WorkitemStateError as error:
        return f"{error.dicom_status:04X}", error.http_status
    return (f"{ruling.warning:04X}" if ruling.warning else str(ruling.path[-1])), 200


@pytest.mark.parametrize("met", [True, False])
@pytest.mark.parametrize("current", COLUMNS)
@pytest.mark.parametrize("lock", list(Lock))
@pytest.mark.parametrize("wanted", [str(state) for state in UpsState])
def test_change_state_equals_every_cell_of_table_cc_1_1_2(wanted, lock, current, met):
    expected = cell(wanted, lock is Lock.RIGHT, current, met)
    got, http = answer(wanted, lock, current, met)
    assert got == expected
    assert http == HTTP.get(expected, 200)


@pytest.mark.parametrize(("current", "expected"), list(zip(COLUMNS, CANCEL_ROW, strict=True)))
def test_cancel_request_equals_its_row(current, expected):
    if expected == "C311":
        with pytest.raises(WorkitemStateError, match=r"The UPS is already COMPLETED\.") as caught:
            request_cancel(current)
        assert (caught.value.dicom_status, caught.value.http_status) == (0xC311, 409)
        return
    ruling = request_cancel(current)
    assert (f"{ruling.warning:04X}" if ruling.warning else ">".join(ruling.path) or "tell") == expected


@pytest.mark.parametrize(
    ("current", "lock", "expected"),
    [
        (S, Lock.MISSING, None),
        (S, Lock.RIGHT, ("C310", 409, "The target URI did not reference a claimed Workitem.")),
        (P, Lock.RIGHT, None),
        (P, Lock.MISSING, ("C301", 400, "The Transaction UID is missing.")),
        (P, Lock.WRONG, ("C301", 400, "The Transaction UID is incorrect.")),
        *[
            (
                final,
                lock,
                ("C300", 400, "The submitted request is inconsistent with the current state of the Workitem."),
            )
            for final in (D, X)
            for lock in Lock
        ],
    ],
)
def test_updates_follow_cc_2_6(current, lock, expected):
    if expected is None:
        check_update(current, lock)
        return
    with pytest.raises(WorkitemStateError) as caught:
        check_update(current, lock)
    assert (f"{caught.value.dicom_status:04X}", caught.value.http_status, caught.value.detail) == expected


def test_a_lock_matches_only_its_own_workitem_and_tenant():
    stored = transaction_hash("a", "1.2", "2.25.1")
    assert same_lock(stored, transaction_hash("a", "1.2", "2.25.1"))
    assert not same_lock(stored, transaction_hash("b", "1.2", "2.25.1"))
    assert not same_lock(stored, transaction_hash("a", "1.3", "2.25.1"))
    assert not same_lock(None, stored)
    assert not same_lock(None, "")
    assert "2.25.1" not in stored


class UpsLife(RuleBasedStateMachine):
    """Any sequence of requests: the state stays what the table says, and final states never change."""

    @initialize()
    def schedule(self):
        self.state, self.lock, self.met = "SCHEDULED", None, False

    @rule(wanted=st.sampled_from([str(state) for state in UpsState]), presented=st.sampled_from(["u1", "u2", None]))
    def ask(self, wanted, presented):
        if presented is None:
            lock = Lock.MISSING
        elif self.state == "SCHEDULED" or presented == self.lock:
            lock = Lock.RIGHT
        else:
            lock = Lock.WRONG
        expected = cell(wanted, lock is Lock.RIGHT, UpsState(self.state), self.met)
        got, _ = answer(wanted, lock, UpsState(self.state), self.met)
        assert got == expected
        if expected in {"IN PROGRESS", "COMPLETED", "CANCELED"}:
            assert not UpsState(self.state).final
            if expected == "IN PROGRESS":
                self.lock = presented
            self.state = expected

    @rule()
    def cancel(self):
        expected = CANCEL_ROW[COLUMNS.index(UpsState(self.state))]
        if expected == "C311":
            with pytest.raises(WorkitemStateError):
                request_cancel(UpsState(self.state))
            return
        ruling = request_cancel(UpsState(self.state))
        if ruling.path:
            assert ">".join(ruling.path) == expected
            self.state = str(ruling.path[-1])

    @precondition(lambda self: self.state == "IN PROGRESS")
    @rule(met=st.booleans())
    def write_results(self, met):
        check_update(UpsState(self.state), Lock.RIGHT)
        self.met = met

    @invariant()
    def only_a_claimed_item_was_finished_by_its_performer(self):
        assert self.state != "COMPLETED" or (self.lock is not None and self.met)


TestUpsLife = UpsLife.TestCase
TestUpsLife.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
