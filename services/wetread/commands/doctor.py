"""``wetread doctor``: what this installation can do, and whether a server is healthy."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from wetread.settings import Settings

_MINIMUM_FREE_BYTES: Final = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report. ``advice`` says what to do when it is red."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def run_doctor(*, url: str | None, live: bool, as_json: bool) -> int:
    """Print the report. Returns 0 when all is green, 1 otherwise, 3 when a given server does not answer."""
    settings = Settings()
    if live:
        return 0 if server_check(f"http://{settings.host}:{settings.port}", "/livez").ok else 3
    checks = [_guarded(name, check, settings) for name, check in _CHECKS]
    if url is not None:
        checks.append(server_check(url, "/readyz"))
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        table = Table("check", "", "what was found", box=None)
        for check in checks:
            mark = "[green]ok[/green]" if check.ok else "[red]BAD[/red]"
            table.add_row(
                check.name, mark, check.detail + (f"\n{check.advice}" if not check.ok and check.advice else "")
            )
        Console().print(table)
    if url is not None and not checks[-1].ok:
        return 3
    return 0 if all(check.ok for check in checks) else 1


def server_check(url: str, path: str) -> Check:
    """Ask a running server for its health."""
    import httpx

    try:
        answer = httpx.get(url.rstrip("/") + path, timeout=5)
    except httpx.TransportError:
        return Check("server", ok=False, detail=f"{url} does not answer", advice="start it with: wetread up")
    return Check("server", ok=answer.status_code == 200, detail=answer.text[:300])


def _guarded(name: str, check: Callable[[Settings], tuple[bool, str, str]], settings: Settings) -> Check:
    try:
        ok, detail, advice = check(settings)
    except Exception as error:  # noqa: BLE001 - a diagnosis reports whatever is wrong
        return Check(name, ok=False, detail=f"{type(error).__name__}: {error}", advice="reinstall wetread")
    return Check(name, ok, detail, advice)


def _python(_settings: Settings) -> tuple[bool, str, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    return sys.version_info >= (3, 11), version, "wetread needs Python 3.11 or newer"


def _packages(_settings: Settings) -> tuple[bool, str, str]:
    names = ["pydicom", "highdicom", "dbos", "onnxruntime", "sqlalchemy", "fastapi"]
    versions = [f"{name} {getattr(importlib.import_module(name), '__version__', 'present')}" for name in names]
    return True, ", ".join(versions), ""


def _codecs(_settings: Settings) -> tuple[bool, str, str]:
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

    wanted = {
        "JPEG lossless": JPEGLosslessSV1,
        "JPEG-LS": JPEGLSLossless,
        "JPEG 2000": JPEG2000Lossless,
        "RLE": RLELossless,
    }
    missing = [name for name, uid in wanted.items() if not get_decoder(uid).is_available]
    detail = f"missing: {', '.join(missing)}" if missing else ", ".join(wanted)
    return not missing, detail, "install python-gdcm, pyjpegls and pylibjpeg-openjpeg"


def _detectors(settings: Settings) -> tuple[bool, str, str]:
    from wetread.bootstrap.house import installed_detectors

    infos = installed_detectors(settings)
    detail = ", ".join(f"{info.name} {info.version}" for info in infos.values())
    return bool(infos), detail or "none", "the folder models/ is missing from this installation"


def _workflows(settings: Settings) -> tuple[bool, str, str]:
    from wetread.bootstrap.house import installed_workflows

    names = installed_workflows(settings)
    return bool(names), ", ".join(names) or "none", "the folder workflows/ is missing from this installation"


def _disk(settings: Settings) -> tuple[bool, str, str]:
    folder = settings.data.absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return free > _MINIMUM_FREE_BYTES, f"{free / 2**30:.1f} GiB free at {Path(settings.data)}", "free some disk space"


_CHECKS: Final = (
    ("python", _python),
    ("packages", _packages),
    ("codecs", _codecs),
    ("detectors", _detectors),
    ("workflows", _workflows),
    ("disk", _disk),
)
