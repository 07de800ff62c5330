"""Measured quantities at every voxel as Parametric Map objects of 32-bit floats (PS3.3 A.75), one per quantity.

Voxels without a value carry the padding value (PS3.3 C.7.6.24): a quantity of ours is never negative, so a reader that
does not know of padding shows them darkest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import highdicom as hd
import numpy as np
from pydicom import Dataset

from wetread.adapters.evidence.coding import concept_code, unit_concept
from wetread.adapters.evidence.reference_header import UTF8, ReferenceView
from wetread.adapters.evidence.stamp import MANUFACTURER, NONE, SERIES_NUMBERS, instance_uid, lo, series_uid, stamp
from wetread.core.detector import FloatArray, ParameterMap
from wetread.core.errors import InvalidInput
from wetread.core.findings import ResultSet
from wetread.core.ruo import RUO_SHORT, RUO_STATEMENT

PADDING: Final = -1.0
"""Value of voxels where nothing was computed."""


def parametric_maps(result: ResultSet, view: ReferenceView, maps: Sequence[ParameterMap]) -> list[Dataset]:
    """Encode *maps*, all in one series; an empty list when the planes of the source cannot be placed.

    Raises InvalidInput when a map does not lie on the planes of the view or holds a negative value.
    """
    first = view.images[0]
    if not view.has_geometry or "NumberOfFrames" in first:
        return []
    return [_parametric_map(result, view, item, number) for number, item in enumerate(maps, start=1)]


def _parametric_map(result: ResultSet, view: ReferenceView, item: ParameterMap, number: int) -> Dataset:
    first, run = view.images[0], result.run
    if item.values.shape != (len(view.images), first.get("Rows"), first.get("Columns")):
        msg = f"map of shape {item.values.shape} does not lie on {len(view.images)} planes of the source"
        raise InvalidInput(msg)
    known = np.isfinite(item.values)
    values = np.where(known, item.values, np.float32(PADDING)).astype(np.float32)
    if known.any() and float(values[known].min()) < 0.0:
        msg = "a parameter map holds a negative value, which stands for padding"
        raise InvalidInput(msg)
    top = _display_top(values, known)
    quantity = concept_code(item.name)
    dataset = hd.pm.ParametricMap(
        source_images=list(view.images),
        pixel_array=values,
        series_instance_uid=series_uid(run, "pm"),
        series_number=SERIES_NUMBERS["pm"],
        sop_instance_uid=instance_uid(run, "pm", number),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=lo(run.detector),
        software_versions=lo(run.software),
        device_serial_number=lo(run.model_digest) or NONE,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            hd.pm.RealWorldValueMapping(
                lut_label=item.unit[:16],
                lut_explanation=lo(f"{quantity.meaning}, {item.unit}"),
                unit=unit_concept(item.unit),
                value_range=(0.0, max(float(values.max()), 1.0)),
                slope=1.0,
                intercept=0.0,
                quantity_definition=quantity,
            )
        ],
        voi_lut_transformations=[hd.VOILUTTransformation(window_center=top / 2, window_width=top)],
        content_description=RUO_SHORT,
        content_creator_name=f"{MANUFACTURER}^AI",
        content_label="MAP",
        content_qualification=hd.ContentQualificationValues.RESEARCH,
        # Frames may have holes between them, so no one spacing is claimed: positions say where each frame lies.
        pixel_measures=hd.PixelMeasuresSequence(
            pixel_spacing=list(first.PixelSpacing), slice_thickness=first.SliceThickness
        ),
        image_flavor=hd.pm.ImageFlavorValues.PERFUSION,
        specific_character_set=UTF8,
    )
    # A range of one value: dciodvfy wants the limit beside the value.
    dataset.FloatPixelPaddingValue = dataset.FloatPixelPaddingRangeLimit = PADDING
    # Type 2C: required for paired structures, and the encoder cannot know; empty is legal, absent is an error.
    dataset.Laterality = ""
    dataset.ImageComments = RUO_STATEMENT
    stamp(dataset, run, view)
    return dataset


def _display_top(values: FloatArray, known: np.ndarray) -> float:
    """Return the upper end of the display window: vessels would make all tissue dark, so the 98th percentile."""
    return max(float(np.percentile(values[known], 98)) if known.any() else 1.0, 1e-3)
