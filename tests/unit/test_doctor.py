"""``wetread doctor``: green where all is there, red with advice where something is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wetread.commands.doctor import run_doctor, server_check


def test_this_installation_is_green(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WETREAD_DATA", str(tmp_path / "not-yet" / "there"))
    assert run_doctor(url=None, live=False, as_json=True) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert set(checks) == {"python", "packages", "codecs", "detectors", "workflows", "disk"}
    assert all(check["ok"] for check in checks.values())
    assert "ich" in checks["detectors"]["detail"]
    assert "head-ct-emergency" in checks["workflows"]["detail"]


def test_a_broken_workflow_is_red_and_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("workflow: x\nnonsense: 1\n", encoding="utf-8")
    monkeypatch.setenv("WETREAD_WORKFLOWS", str(tmp_path))
    assert run_doctor(url=None, live=False, as_json=True) == 1
    [check] = [c for c in json.loads(capsys.readouterr().out) if c["name"] == "workflows"]
    assert not check["ok"]
    assert "bad.yaml:" in check["detail"]


def test_a_server_that_does_not_answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not server_check("http://127.0.0.1:9", "/readyz").ok
    assert run_doctor(url="http://127.0.0.1:9", live=False, as_json=False) == 3
    assert "wetread up" in capsys.readouterr().out
    monkeypatch.setenv("WETREAD_PORT", "9")
    assert run_doctor(url=None, live=True, as_json=False) == 3
