"""Bad input for every detector folder: one good series, broken in one way at a time, and the typed answer to each.

The table in ``docs/bad-input.md`` is written from here: ``python -m wetread.testing.bad_input``. No network is asked:
an input that would reach one counts as read. Only a clip in motion goes through its network, whose outlines show it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from pydicom import Dataset, dcmread

from wetread.adapters.codecs.decoder import PydicomFrameDecoder
from wetread.adapters.inference.onnxruntime import OnnxRuntimeClient
from wetread.core.detector import Context, FrameRef, Volume
from wetread.core.dicom.dynamic import assemble_input
from wetread.core.errors import ConfigurationError, NotApplicable, NotProcessable
from wetread.core.manifest import InputNeeds
from wetread.detection.evaluation.measure import drive
from wetread.detection.folder import studies_of
from wetread.detection.registry import bundled_folder, companion, load, read_folder
from wetread.testing.contracts.folder_suite import objects_of
from wetread.testing.phantoms.series import series_of

PAGE: Final = "bad-input.md"
READ: Final = "read"
"""The answer to an input that is not refused."""
GENERIC_CONTRAST: Final = "Iohexol"
ELSEWHERE: Final = ("BodyPartExamined", "ProtocolName", "StudyDescription", "SeriesDescription")
Images = list[Dataset]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a detector says to an input: ``read``, or the state and typed reason of its refusal."""

    state: str
    reason: str = ""

    def __str__(self) -> str:
        return self.reason or self.state


@dataclass(frozen=True, slots=True)
class Good:
    """A series that a detector reads; ``organ``: it shows what the detector looks for, so unbroken it is read."""

    objects: Sequence[bytes]
    organ: bool


@dataclass(frozen=True, slots=True)
class Case:
    """One way to break a series. ``says`` describes it in the table; ``shows_in_outlines``: in those of a clip."""

    says: str
    broken: Callable[[Images, InputNeeds], Images]
    shows_in_outlines: bool = False


def good_input(folder: Path) -> Good:
    """Return a quick series for a folder: its own ``good_objects()``, else a case of its own, else a ball.

    ``cases.py`` may define ``good_objects() -> list[bytes]`` (PS3.10), or ``CONTRACT_OPTIONS`` that make its ``case``
    quick to render.
    """
    installed = read_folder(folder)
    if (folder / "cases.py").is_file():
        cases = companion(installed, "cases")
        if hasattr(cases, "good_objects"):
            return Good(list(cases.good_objects()), organ=True)
        if hasattr(cases, "CONTRACT_OPTIONS"):
            return Good(objects_of(folder), organ=True)
    needs = installed.info.manifest.input
    part = needs.body_part.any[0] if needs.body_part else ""
    agent = {"ContrastBolusAgent": GENERIC_CONTRAST} if needs.contrast == "present" else {}
    made = series_of(
        ball(needs), seed=1, modality=needs.modality[0], body_part=part, description=f"{part} T1", attributes=agent
    )
    return Good(made, organ=False)


def ball(needs: InputNeeds) -> Volume:
    """Return a ball of soft tissue on planes as the manifest wants them."""
    count = max(needs.series.min_slices + 4, 40)
    step = min(needs.series.max_step_mm or 5.0, 5.0, max(1.0, 1.1 * (needs.series.coverage_mm or 100.0) / count))
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in (count, 48, 48)], indexing="ij")
    low, high = (-1000, 40) if needs.modality[0] == "CT" else (10, 400)
    return Volume(
        np.where(x**2 + y**2 + z**2 < 0.8, high, low).astype(np.float32),
        np.column_stack([np.full((count, 2), -96.0), np.arange(count) * step]),
        np.array([1.0, 0, 0]),
        np.array([0, 1.0, 0]),
        (4.0, 4.0),
        np.full(count, step),
        tuple(FrameRef(f"1.2.{k}") for k in range(count)),
    )


def outcome(folder: Path, case: str, good: Good) -> Outcome:
    """Break *good* as *case* says and ask the detector: headers, selection, assembly, its own checks."""
    installed = read_folder(folder)
    needs = installed.info.manifest.input
    images: Images = [dcmread(BytesIO(data)) for data in good.objects]
    with TemporaryDirectory() as scratch:
        paths = []
        for number, image in enumerate(CASES[case].broken(images, needs)):
            paths.append(Path(scratch) / f"{number:05d}.dcm")
            image.save_as(paths[-1])
        (study,) = studies_of(paths)
        detector = load(installed)
        through = needs.cine is not None and CASES[case].shows_in_outlines
        try:
            answer = detector.applicable(study.facts)
            if not answer.applicable:
                return Outcome("not_applicable", answer.reason or "")
            chosen = detector.select(study.facts)
            data = [study.files[uid].read_bytes() for uid in chosen.sop_instance_uids]
            volume = assemble_input(data, PydicomFrameDecoder(), needs)
            if through:
                drive(detector, OnnxRuntimeClient(installed.networks, threads=1), volume)
            else:
                next(detector.steps(volume, Context(volume, detector.manifest.parameters)))
        except NotApplicable as refusal:
            return Outcome("not_applicable", refusal.reason)
        except NotProcessable as refusal:
            return Outcome("not_processable", refusal.reason)
        except StopIteration:
            pass  # it answered without a network
        return Outcome(READ)


def _with(**attributes: Any) -> Callable[[Images, InputNeeds], Images]:
    def broken(images: Images, needs: InputNeeds) -> Images:
        del needs
        for image in images:
            for keyword, value in attributes.items():
                if value is None:
                    image.pop(keyword, None)
                else:
                    setattr(image, keyword, value)
        return images

    return broken


def _other_modality(images: Images, needs: InputNeeds) -> Images:
    return _with(Modality="CT" if "US" in needs.modality else "US")(images, needs)


def _wrong_contrast(images: Images, needs: InputNeeds) -> Images:
    return _with(ContrastBolusAgent=None if needs.contrast == "present" else GENERIC_CONTRAST)(images, needs)


def _heights(images: Images) -> list[float]:
    orientation = [float(v) for v in images[0].ImageOrientationPatient]
    normal = np.cross(orientation[:3], orientation[3:])
    return [round(float(np.dot(normal, [float(v) for v in i.ImagePositionPatient])), 3) for i in images]


def _few(images: Images, needs: InputNeeds) -> Images:
    """Keep three planes; of a dynamic series three time points, of a clip three frames."""
    if needs.cine is not None:
        return [_frames(image, range(3)) for image in images]
    heights = _heights(images)
    if needs.time is None:
        kept = set(sorted(set(heights))[:3])
        return [image for image, height in zip(images, heights, strict=True) if height in kept]
    seen: dict[float, int] = {}
    out = []
    for image, height in zip(images, heights, strict=True):
        seen[height] = seen.get(height, 0) + 1
        if seen[height] <= 3:
            out.append(image)
    return out


def _gap(images: Images, needs: InputNeeds) -> Images:
    """Leave a third of the planes out in the middle, or of the frames of a clip."""
    if needs.cine is not None:
        counts = [int(image.NumberOfFrames) for image in images]
        kept = [[k for k in range(n) if not n // 3 <= k < n - n // 3] for n in counts]
        return [_frames(image, chosen) for image, chosen in zip(images, kept, strict=True)]
    heights = _heights(images)
    planes = sorted(set(heights))
    first, last = planes[len(planes) // 3], planes[-(len(planes) // 3) - 1]
    return [i for i, h in zip(images, heights, strict=True) if not first < h <= last or h == planes[-1]]


def _frames(image: Dataset, chosen: Sequence[int]) -> Dataset:
    """Keep some frames of a multi-frame image."""
    pixels = image.pixel_array[list(chosen)]
    image.NumberOfFrames = len(pixels)
    image.PixelData = pixels.tobytes()
    return image


def _moved(images: Images, needs: InputNeeds) -> Images:
    """Shift and mix every image along its rows by chance: a patient who moves all the time."""
    del needs
    for number, image in enumerate(images):
        pixels = image.pixel_array
        rng = np.random.default_rng(number)
        single = pixels.reshape(-1, image.Rows, image.Columns, image.get("SamplesPerPixel", 1))
        moved = np.empty_like(single)
        for k, frame in enumerate(single):
            ghost = np.roll(frame, int(rng.integers(4, max(5, frame.shape[0] // 3))), axis=0)
            moved[k] = np.roll((frame.astype(np.int32) + ghost) // 2, int(rng.integers(-12, 13)), axis=1)
        image.PixelData = moved.astype(pixels.dtype).tobytes()
    return images


def _other_organ(images: Images, needs: InputNeeds) -> Images:
    """Right headers, wrong image: noise without any organ."""
    del needs
    for number, image in enumerate(images):
        pixels = image.pixel_array
        low, high = int(pixels.min()), int(pixels.max()) + 1
        noise = np.random.default_rng(number).integers(low, max(high, low + 2), pixels.shape)
        image.PixelData = noise.astype(pixels.dtype).tobytes()
    return images


def _stretched(images: Images, needs: InputNeeds) -> Images:
    for image in images:
        if needs.cine is not None:
            for region in image.get("SequenceOfUltrasoundRegions", ()):
                region.PhysicalDeltaX = 0.6 * region.PhysicalDeltaX
            continue
        image.PixelSpacing = [image.PixelSpacing[0], round(float(image.PixelSpacing[1]) * 0.6, 6)]
    return images


CASES: Final[Mapping[str, Case]] = {
    "as_it_is": Case("the good series, unbroken", _with()),
    "other_modality": Case("Modality US, or CT where US is read", _other_modality),
    "wrong_contrast": Case("contrast agent named, or not, against the manifest", _wrong_contrast),
    "sharp_kernel": Case("kernel BONE", _with(ConvolutionKernel="BONE")),
    "wrong_body_part": Case("headers say FOOT", _with(**dict.fromkeys(ELSEWHERE, "FOOT"))),
    "no_organ": Case("right headers, an image of noise", _other_organ),
    "too_few_slices": Case("three planes, three time points or three frames", _few),
    "gap": Case("a third of the planes (of a clip: frames) missing in the middle", _gap),
    "motion": Case("ghosts and shifts in every image", _moved, shows_in_outlines=True),
    "non_square_pixels": Case("pixels 0.6 times as wide as high", _stretched),
    "missing_rescale": Case("no Rescale Slope and Intercept", _with(RescaleSlope=None, RescaleIntercept=None)),
    "no_position": Case("no Image Position (Patient)", _with(ImagePositionPatient=None)),
    "truncated_pixels": Case("two bytes of pixel data", _with(PixelData=b"\0\0")),
}


def detector_folders() -> list[Path]:
    """Return the bundled detector folders; a new one joins by being there."""
    return sorted(path.parent for path in bundled_folder().glob("*/detector.yaml"))


def page(answers: Mapping[str, Mapping[str, Outcome]], generic: Sequence[str]) -> str:
    """Return the page of the documentation: a row per case, a column per detector."""
    names = sorted(answers)
    lines = [
        "# Bad input",
        "",
        "What each bundled detector answers when one good series is broken in one way: the reason of its refusal (see",
        "[detectors](detectors.md)), or `read`: it is taken as it is. Written by",
        "`PYTHONPATH=services python -m wetread.testing.bad_input`;",
        "`tests/contracts/test_detectors_bad_input.py` asks every cell again.",
        "",
        f"| the series | what is wrong | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    for key, case in CASES.items():
        cells = " | ".join(f"`{answers[name][key]}`" for name in names)
        lines.append(f"| {key.replace('_', ' ')} | {case.says} | {cells} |")
    lines += [
        "",
        "Non-square pixels are no fault: spacing is read per axis. A kernel is a preference among several series. CT",
        "numbers need a rescale, MR signal does not. Motion has a reason of its own where a detector looks for it;",
        "in a clip it shows as outlines that jump. `ich` reads on: a head that moves may bleed.",
        "A clip has no place in the patient, so it can lack none; its pixel size is that of its ultrasound regions.",
    ]
    if generic:
        shown = ", ".join(f"`{name}`" for name in sorted(generic))
        lines += ["", f"For {shown} the series is a ball of soft tissue: unbroken, it is refused too."]
    return "\n".join([*lines, ""])


def table(text: str) -> dict[str, dict[str, str]]:
    """Read the answers of a page back: detector -> case -> answer. Raises ConfigurationError when it has no table."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]
    if not rows:
        raise ConfigurationError("the page of bad input has no table")
    names, keys = rows[0][2:], list(CASES)
    found: dict[str, dict[str, str]] = {name: {} for name in names}
    for row in rows[1:]:
        key = row[0].replace(" ", "_")
        if key in keys:
            for name, cell in zip(names, row[2:], strict=True):
                found[name][key] = cell.strip("`")
    return found


def main() -> int:
    """Ask every folder everything and write the page."""
    answers, generic = {}, []
    for folder in detector_folders():
        good = good_input(folder)
        if not good.organ:
            generic.append(folder.name)
        answers[folder.name] = {case: outcome(folder, case, good) for case in CASES}
        sys.stdout.write(f"{folder.name}: {', '.join(f'{k} {v}' for k, v in answers[folder.name].items())}\n")
    target = bundled_folder().parent / "docs" / PAGE
    target.write_text(page(answers, generic), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
