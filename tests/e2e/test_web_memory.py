"""What web processes do not carry: decoders, which live in processes of their own (ADR 0206)."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.conftest import Wetread
from tests.gateway_support import multipart, stow_headers

from wetread.registry import WEB


def tree(pid: int) -> list[int]:
    """Return a process and those it forked to be like it: web processes, not codecs."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    own = Path(f"/proc/{pid}/cmdline").read_bytes()
    return [pid, *(child for child in children if Path(f"/proc/{child}/cmdline").read_bytes() == own)]


def test_a_frame_only_gdcm_decodes_is_rendered_without_gdcm_in_a_web_process(wetread: Wetread, shared: Path) -> None:
    lossless = (shared / "dicom-variety/dcmjs/sample-op.dcm").read_bytes()
    stored = wetread.post("/dicom-web/studies", content=multipart([lossless]), headers=stow_headers())
    assert stored.status_code in (200, 202)
    url = stored.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    rendered = wetread.get(f"{url.removeprefix(wetread.url)}/rendered", headers={"Accept": "image/jpeg"})
    assert (rendered.status_code, rendered.content[:2]) == (200, b"\xff\xd8")
    [web] = [child for child in wetread.supervisor.children if set(child.names) <= set(WEB)]
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in tree(web.process.pid)]
    assert all("python" in one for one in maps)
    assert not [one for one in maps if "gdcm" in one]
