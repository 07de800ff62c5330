"""The four studies that `wetread demo` sends when the user gives no folder, and the big one for timing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wetread.testing.phantoms.dicom import Headers, WrittenSeries, write_dicom
from wetread.testing.phantoms.head import make
from wetread.testing.phantoms.spec import BleedType, HeadSpec, Phantom

# test-split seeds, taken in order: nothing was tried to make the detector look good
_STUDIES: tuple[tuple[str, int, tuple[BleedType, ...], float | None], ...] = (
    ("large intraparenchymal bleed", 2_900_001, (BleedType.IPH, BleedType.IVH), 45.0),
    ("subdural bleed", 2_900_002, (BleedType.SDH,), 25.0),
    ("no bleed, calcium and dense sinuses", 2_900_003, (), None),
    ("subarachnoid and ventricular bleed", 2_900_004, (BleedType.SAH, BleedType.IVH), 12.0),
)


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """One written study and its truth: blood by type in mL (empty: none)."""

    title: str
    seed: int
    series: WrittenSeries
    volume_ml: dict[str, float]

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return self.series.study_instance_uid

    @property
    def positive(self) -> bool:
        """True when the truth contains blood."""
        return bool(self.volume_ml)


def demo_studies(folder: Path) -> Iterator[DemoStudy]:
    """Write the demo's studies one by one, each into a folder of its own, and yield its truth."""
    for number, (title, seed, bleeds, volume_ml) in enumerate(_STUDIES, start=1):
        spec = HeadSpec(
            split="s0",
            matrix=512,
            bleeds=bleeds,
            volume_ml=volume_ml,
            thickness_mm=5.0,
            step_mm=5.0,
            regular=True,
        )
        phantom = make(seed, spec)
        series = write_dicom(phantom, folder / f"study-{number}", headers=Headers(localizer=number == 1))
        truth: dict[str, float] = {}
        for bleed in phantom.bleeds:
            truth[bleed.type.name] = truth.get(bleed.type.name, 0.0) + bleed.volume_ml
        yield DemoStudy(title, seed, series, truth)


def thin_phantom(*, seed: int = 2_900_100, slices: int = 324) -> Phantom:
    """Render a bleed in 512 x 512 slices 0.5 mm apart: as much data as a clinical thin-slice head CT."""
    spec = HeadSpec(
        split="s0",
        matrix=512,
        bleeds=(BleedType.IPH,),
        volume_ml=20.0,
        thickness_mm=0.625,
        step_mm=0.5,
        coverage_mm=slices * 0.5 + 1.0,
        tilt_deg=0.0,
        regular=True,
    )
    return make(seed, spec)
