"""DICOM files that no detector wants: every detector answers each with a typed reason, never with an exception."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from wetread.core.identifiers import derived_uid
from wetread.testing.sections import ct_plane, part10

_STRANGE: Final[dict[str, dict[str, Any]]] = {
    "ultrasound": {"Modality": "US", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.1", "ImagePositionPatient": None},
    "localizer": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    "unplaced": {"ImagePositionPatient": None, "ImageOrientationPatient": None},
    "lossy": {"LossyImageCompression": "01", "LossyImageCompressionRatio": 200},
    "contrast": {"ContrastBolusAgent": "Iohexol"},
    "report": {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "PixelData": None, "Rows": None},
    "no-rescale": {"RescaleSlope": None, "RescaleIntercept": None},
    "magnetic": {"Modality": "MR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "BodyPartExamined": "KNEE"},
    "endless": {"PixelSpacing": [0, 0]},
}


def strange_files(folder: Path) -> list[Path]:
    """Write one study of each kind into *folder* and return the files."""
    paths = []
    for name, attributes in _STRANGE.items():
        header = ct_plane(
            np.full((8, 8), 1024, np.int16),
            (0, 0, 0),
            series=name,
            StudyInstanceUID=derived_uid("strange", name),
            **attributes,
        )
        path = folder / f"{name}.dcm"
        path.write_bytes(part10(header))
        paths.append(path)
    return paths
