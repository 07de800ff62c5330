"""``wetread models import``: look at a foreign model, then bring it in."""

from __future__ import annotations

import sys
from pathlib import Path

from wetread.core.errors import WetreadError
from wetread.detection.importing.door import Accepted, bring_in, look
from wetread.detection.importing.errors import ImportRefused
from wetread.detection.registry import bundled_folder


def run_import(
    source: Path, *, name: str, into: Path | None, digest: str, licence: str, accept: bool, shape: str
) -> int:
    """Look, or bring in. Returns the exit code: 1 when nothing was accepted yet, 2 when it was refused."""
    try:
        if not accept:
            return _show(source)
        if into is None or into.resolve() == bundled_folder().resolve():
            print("wetread: --into names a folder of third-party detectors, never the bundled one", file=sys.stderr)
            return 2
        sizes = tuple(int(part) for part in shape.split(",")) if shape else None
        folders = bring_in(source, into.resolve(), name, Accepted(digest, licence), shape=sizes)
    except ImportRefused as refusal:
        print(f"wetread: refused ({refusal.code}): {refusal.detail}", file=sys.stderr)
        return 2
    except (WetreadError, ValueError) as error:
        print(f"wetread: {getattr(error, 'detail', 'a shape is numbers by comma')}", file=sys.stderr)
        return 2
    for folder in folders:
        print(folder)
    print(f"In shadow. Serve it with WETREAD_DETECTORS={into.resolve()}")
    return 0


def _show(source: Path) -> int:
    found = look(source)
    print(f"{source.name}: {found.form}, {found.files} files, {found.size / 1e6:.1f} MB")
    for weight in found.weights:
        print(f"  {weight}")
    print(f"Licence, as far as its files say: {found.licence}")
    for line in found.licence_text.splitlines():
        print(f"  | {line}")
    print("Nothing of it was run. A model is code: accept it only from a source that you trust, by:")
    print(f"  --sha256 {found.digest} --licence {found.licence} --accept --name NAME --into FOLDER")
    return 1
