"""PS3.4 table CC.1.1-2 over HTTP, cell by cell with its event column, and every status and warning of the service."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.ups_worklist import discontinuation, fresh_uid, performed, request_dataset, warning, worklist

from wetread.core.ups import WARNING_TEXT, UpsStatus
from wetread.worklist.ups import UpsHooks

HERE = Path(__file__).parent
COLUMNS = ("none", "SCHEDULED", "IN PROGRESS", "COMPLETED", "CANCELED")
IN, DONE, OFF = "-> IN PROGRESS", "-> COMPLETED", "-> CANCELED"

# Rows of the table: what is asked, with which Transaction UID, and whether the final state requirements are met.
# "-> X": the transition. Otherwise the status: failures C3xx and 0111, warnings B30x; "202": accepted, told to others.
TABLE: dict[str, tuple[str, str, str, str, str]] = {
    "create": ("-> SCHEDULED", "0111", "0111", "0111", "0111"),
    "claim, right UID": ("C307", IN, "C302", "C300", "C300"),
    "claim, wrong UID": ("C307", IN, "C301", "C301", "C301"),
    "claim, no UID": ("C307", "C301", "C301", "C301", "C301"),
    "to SCHEDULED, right UID": ("C307", "C303", "C303", "C303", "C303"),
    "to SCHEDULED, wrong UID": ("C307", "C303", "C303", "C303", "C303"),
    "complete, right UID, met": ("C307", "C310", DONE, "B306", "C300"),
    "complete, right UID, not met": ("C307", "C310", "C304", "B306", "C300"),
    "complete, wrong UID, met": ("C307", "C310", "C301", "C301", "C301"),
    "complete, no UID, met": ("C307", "C301", "C301", "C301", "C301"),
    "cancel, right UID, met": ("C307", "C310", OFF, "C300", "B304"),
    "cancel, right UID, not met": ("C307", "C310", "C304", "C300", "B304"),
    "cancel, wrong UID, met": ("C307", "C310", "C301", "C301", "C301"),
    "cancel, no UID, met": ("C307", "C301", "C301", "C301", "C301"),
    "update, right UID": ("C307", "C310", "200", "C300", "C300"),
    "update, wrong UID": ("C307", "C310", "C301", "C300", "C300"),
    "update, no UID": ("C307", "200", "C301", "C300", "C300"),
    "request cancel": ("C307", OFF, "202", "C311", "B304"),
}
EVENTS = {IN: ["IN PROGRESS"], DONE: ["COMPLETED"], OFF: ["CANCELED"], "-> SCHEDULED": ["SCHEDULED"]}
"""State reports (type 1) of a transition; a cancelled SCHEDULED item passes through IN PROGRESS (CC.2.2.3)."""


@pytest.fixture
def ups(tmp_path):
    with worklist(tmp_path, hooks=UpsHooks(on_cancel_requested=lambda _tx, _tenant, _uid: True)) as opened:
        opened.subscribe("1.2.840.10008.5.1.4.34.5", "WATCHER")
        yield opened


def item(ups, state, *, met):
    """Return (UID, Transaction UID) of a workitem in *state*; ``met``: what its final state needs is there."""
    if state == "none":
        return fresh_uid(), fresh_uid()
    if state == "SCHEDULED":
        return ups.create(), fresh_uid()
    if state == "IN PROGRESS":
        uid, lock = ups.claimed()
        if met:
            assert ups.update(uid, performed() | discontinuation(), lock).status_code == 200
        return uid, lock
    return ups.completed() if state == "COMPLETED" else ups.canceled()


def ask(ups, row, uid, lock):
    verb, _, how = row.partition(", ")
    key = {"right": lock, "wrong": fresh_uid(), "no": None, "": None}[how.split(" ", 1)[0]]
    if verb == "create":
        return ups.client.post(f"/dicom-web/workitems?workitem={uid}", json=[request_dataset()])
    if verb == "request cancel":
        return ups.client.post(f"/dicom-web/workitems/{uid}/cancelrequest", json=[])
    if verb == "update":
        return ups.update(uid, {"00741204": {"vr": "LO", "Value": ["changed"]}}, key)
    wanted = {"claim": "IN PROGRESS", "to SCHEDULED": "SCHEDULED", "complete": "COMPLETED", "cancel": "CANCELED"}
    return ups.ask_state(uid, wanted[verb], key)


@pytest.mark.parametrize("row", list(TABLE))
def test_every_cell_of_the_table(ups, row):
    for column, expected in zip(COLUMNS, TABLE[row], strict=True):
        uid, lock = item(ups, column, met="not met" not in row)
        before = len(ups.queued("WATCHER"))
        answer = ask(ups, row, uid, lock)
        told = [
            body["00741000"]["Value"][0] for of, kind, body in ups.queued("WATCHER")[before:] if (of, kind) == (uid, 1)
        ]
        where = f"{row} on {column}: {answer.status_code} {answer.text[:200]}"
        if expected.startswith("-> "):
            assert answer.is_success, where
            assert ups.state(uid) == expected.removeprefix("-> "), where
            through = ["IN PROGRESS"] if (row, column) == ("request cancel", "SCHEDULED") else []
            assert told == through + EVENTS[expected], where
        elif expected.startswith("B"):
            assert answer.is_success, where
            assert answer.headers["warning"] == warning(WARNING_TEXT[UpsStatus(int(expected, 16))]), where
            assert told == [], where
        elif expected in {"200", "202"}:
            assert answer.status_code == int(expected), where
            assert ups.state(uid) == column, where
        else:
            assert answer.json()["dicom_status"] == expected, where
            assert not answer.is_success, where
            assert told == [], where
            if column != "none":
                assert ups.state(uid) == column, where


def test_every_status_and_warning_of_the_service_is_asserted_somewhere():
    """A code that no conformance test of this folder names is a code that nobody has seen work."""
    said = "\n".join(path.read_text("utf-8") for path in HERE.glob("test_ups_rs_*.py"))
    for status in UpsStatus:
        by_code, by_text = f'"{status:04X}"' in said, WARNING_TEXT.get(status, "\0") in said
        assert by_code or by_text, f"{status.name} {status:04X}"
