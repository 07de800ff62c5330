"""Every real file: stored or refused with the right reason, back byte for byte, metadata as pydicom's, no 5xx."""

from __future__ import annotations

import collections
import io
import json
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from tests.conformance.conftest import Variety, variety_files
from tests.json_oracle import normalised, oracle_json

from wetread.core.dicom.header import read_header
from wetread.core.dicom.lossless import HTJ2K, JPEG_LS, LOSSLESS
from wetread.core.dicom.transfer_syntax import transfer_syntax

NATIVE = "1.2.840.10008.1.2.1"
FEW_FRAMES = 3
"""Of files with more, the fast suite renders the first and the last."""


def expected_refusal(part: bytes) -> int:
    """Return the reason that pydicom's reading of the file calls for; 0: none, it has to be stored."""
    try:
        data = pydicom.dcmread(io.BytesIO(part), force=True)
        if data.get("MediaStorageSOPClassUID", data.file_meta.get("MediaStorageSOPClassUID")) == "1.2.840.10008.1.3.10":
            return 0x0122
        if "DirectoryRecordSequence" in data:
            return 0x0122
    except Exception:  # noqa: BLE001 - what the oracle cannot read is no DICOM
        return 0xC000
    if not len(data):
        return 0xC000
    needed = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    return 0 if all(re.fullmatch(r"[0-9.]{1,64}", str(data.get(name) or "")) for name in needed) else 0xA900


def test_refused_with_the_right_reason(variety: Variety, shared: Path) -> None:
    parts = {str(path.relative_to(shared / "dicom-variety")): path.read_bytes() for path in variety_files(shared)}
    wrong = {}
    for name, reason in variety.refused.items():
        right = expected_refusal(parts[name])
        # The oracle reads on where lengths lie: a refusal for damage is right wherever the walker met it.
        if reason not in (right, 0xB00E, 0xC000):
            wrong[name] = f"{reason:04X} instead of {right:04X}"
    assert wrong == {}
    assert len(variety.kept) >= 180
    damaged = [
        name for name, reason in variety.refused.items() if reason == 0xC000 and not expected_refusal(parts[name])
    ]
    assert len(damaged) <= 8, damaged


@pytest.mark.timeout(300)
def test_every_file(variety: Variety) -> None:
    answers: collections.Counter[tuple[str, int]] = collections.Counter()
    for item in variety.kept:
        header = read_header(item.part)
        back = variety.site.get(item.path, f"application/dicom; transfer-syntax={header.transfer_syntax_uid}")
        assert back.status_code == 200, item.name
        if header.complete_file:
            assert back.content == item.part, item.name
        else:
            assert back.content.endswith(item.part[header.dataset_start :]), item.name
        metadata = variety.site.get(f"{item.path}/metadata")
        if not item.name.endswith("badVR.dcm"):
            assert normalised(json.loads(metadata.content)[0]) == normalised(oracle_json(item.part)), item.name
        for suffix, accept in (
            ("", "application/dicom"),
            ("/frames/1", "multipart/related; type=application/octet-stream; transfer-syntax=*"),
            ("/frames/1", f"multipart/related; type=application/octet-stream; transfer-syntax={NATIVE}"),
            ("/thumbnail", "*/*"),
            ("/bulkdata/7FE00010", "*/*"),
        ):
            answer = variety.site.get(item.path + suffix, accept)
            assert answer.status_code < 500, (item.name, suffix, answer.text)
            answers[suffix, answer.status_code] += 1
    assert answers["/thumbnail", 200] == len(variety.kept)


def frames_of_pydicom(data: pydicom.Dataset) -> np.ndarray | None:
    """Return frames x rows x columns [x samples] as pydicom decodes them, or None."""
    try:
        pixels = data.pixel_array
    except Exception:  # noqa: BLE001 - what pydicom cannot decode is not asked of us
        return None
    if not pixels.size:
        return None
    single = pixels.ndim == (3 if data.get("SamplesPerPixel", 1) > 1 else 2)
    return pixels[np.newaxis] if single else pixels


def some(count: int) -> list[int]:
    return sorted({1, count})


@pytest.mark.timeout(300)
def test_every_frame_that_pydicom_decodes_renders(variety: Variety) -> None:
    failed, rendered = [], 0
    for item in variety.kept:
        decoded = frames_of_pydicom(item.data)
        if decoded is None:
            continue
        numbers = range(1, len(decoded) + 1) if len(decoded) <= FEW_FRAMES else some(len(decoded))
        for number in numbers:
            answer = variety.site.get(f"{item.path}/frames/{number}/rendered", "image/png")
            if answer.status_code != 200:
                failed.append((item.name, number, answer.status_code))
                continue
            rendered += 1
            with Image.open(io.BytesIO(answer.content)) as picture:
                assert picture.width == item.data.Columns, item.name
    assert failed == []
    assert rendered >= 180


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_frame_without_exception(variety: Variety) -> None:
    """The same without sampling long files, and each frame's native values as pydicom decodes them."""
    compared = 0
    for item in variety.kept:
        data = item.data
        decoded = frames_of_pydicom(data)
        if decoded is None:
            continue
        for number in range(1, len(decoded) + 1):
            answer = variety.site.get(f"{item.path}/frames/{number}/rendered", "image/jpeg")
            assert answer.status_code == 200, (item.name, number)
            compared += 1
    assert compared >= 1000


def exact_transcodes(variety: Variety, targets: tuple[str, ...], part_bytes: int) -> collections.Counter[str]:
    """Compare what a lossless syntax brings back with the values that pydicom reads from the original."""
    compared: collections.Counter[str] = collections.Counter()
    for item in variety.kept:
        data = item.data
        stored = str(data.file_meta.get("TransferSyntaxUID", NATIVE))
        if len(item.part) > part_bytes or transfer_syntax(stored).lossy:
            continue
        decoded = frames_of_pydicom(data)
        if decoded is None:
            continue
        for target in targets:
            answer = variety.site.get(item.path, f"application/dicom; transfer-syntax={target}")
            if answer.status_code == 406:
                continue
            found = frames_of_pydicom(pydicom.dcmread(io.BytesIO(answer.content)))
            assert found is not None, (item.name, target)
            assert np.array_equal(found, decoded), (item.name, target)
            compared[target] += 1
    return compared


def test_lossless_transcodes_of_small_real_files_are_exact(variety: Variety) -> None:
    compared = exact_transcodes(variety, (JPEG_LS, HTJ2K), 16_000)
    assert min(compared[JPEG_LS], compared[HTJ2K]) >= 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_lossless_transcodes_of_real_files_are_exact(variety: Variety) -> None:
    compared = exact_transcodes(variety, tuple(sorted(LOSSLESS)), 1 << 30)
    assert min(compared[target] for target in LOSSLESS) >= 60


def test_nema_lossless_variants_decode_identically(variety: Variety) -> None:
    """NEMA WG-04: the lossless encodings of one image have the same values, decompressed by us and by pydicom."""
    values: dict[str, dict[str, bytes]] = {}
    for item in variety.kept:
        data = item.data
        syntax = transfer_syntax(str(data.file_meta.TransferSyntaxUID)) if "nema-wg04" in item.name else None
        if syntax is None or syntax.lossy:
            continue
        answer = variety.site.get(item.path, f"application/dicom; transfer-syntax={NATIVE}")
        assert answer.status_code == 200, item.name
        plain = pydicom.dcmread(io.BytesIO(answer.content))
        assert np.array_equal(plain.pixel_array, data.pixel_array), item.name
        image = Path(item.name).name.partition("_")[0]
        values.setdefault(image, {})[syntax.uid] = plain.pixel_array.tobytes()
    several = {image: found for image, found in values.items() if len(found) > 1}
    assert several, "there are images in more than one lossless syntax"
    for image, found in several.items():
        assert len(set(found.values())) == 1, image
