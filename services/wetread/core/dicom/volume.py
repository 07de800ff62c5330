"""Volume assembly: the selected objects of a series become one ``Volume``, or a typed reason why not.

Positions along the common normal decide the order; tilt stays visible as origins that shift in the plane; holes up
to the manifest's limit are bridged by the weights of their neighbours and flagged. Nothing is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np

from wetread.core.detector import FloatArray, Volume
from wetread.core.dicom.planes import PlaneImage, read_planes
from wetread.core.dicom.rescale import apply
from wetread.core.dicom.selection import refuses_lossy, shortfall
from wetread.core.dicom.stacking import StackGeometry, arrange, cluster_orientations, is_projection, plane_of, unit_axes
from wetread.core.errors import NotProcessable
from wetread.core.manifest import LossyPolicy, SeriesNeeds
from wetread.core.ports.pixels import FrameDecoder

MAX_VOXELS: Final = 1 << 29
"""2 GiB of float32: more than any section stack; a header that asks for more is wrong or hostile."""


def assemble(
    objects: Sequence[bytes],
    decoder: FrameDecoder,
    *,
    needs: SeriesNeeds | None = None,
    lossy: LossyPolicy | None = None,
    threads: int = 1,
) -> Volume:
    """Assemble the planes of *objects* (PS3.10 bytes, any order) into one volume.

    *threads* share decoding and rescaling. Raises NotProcessable: no_geometry, mixed_orientation, missing_slices,
    slice_spacing, incomplete_coverage, gantry_tilt, lossy_not_allowed, decode_error, not_grayscale,
    rescale_missing, too_large.
    """
    needs, lossy = needs or SeriesNeeds(), lossy or LossyPolicy()
    everything = [plane for data in objects for plane in read_planes(data, decoder)]
    planes, flags = one_stack(everything, needs)
    orientation = planes[0].orientation
    assert orientation is not None
    geometry = arrange(
        np.asarray([p.origin for p in planes], dtype=np.float64), orientation, [p.recency for p in planes]
    )
    lack = shortfall(geometry, needs)
    if lack is not None:
        raise NotProcessable(*lack)
    kept = [planes[index] for index in geometry.order]
    flags += [*geometry.flags, *quality_flags(kept, lossy)]
    voxels = _read(kept, threads)
    return _volume(kept, geometry, orientation, voxels, flags)


def one_stack(everything: Sequence[PlaneImage], needs: SeriesNeeds) -> tuple[list[PlaneImage], list[str]]:
    """Return the planes of the stack to use and flags for what was left out.

    Raises NotProcessable: no_geometry, mixed_orientation.
    """
    flags = []
    sections = [p for p in everything if not is_projection(p.image_type)]
    if len(sections) < len(everything):
        flags.append("localizers_left_out")
    placed = sorted((p for p in sections if p.placed), key=lambda p: p.recency[2])
    if not placed:
        raise NotProcessable("no_geometry", "no image has a position in the patient")
    if len(placed) < len(sections):
        flags.append("unplaced_images_left_out")
    groups: dict[tuple[object, ...], list[PlaneImage]] = {}
    for plane in placed:
        spacing = tuple(round(v, 4) for v in plane.pixel_spacing or ())
        groups.setdefault((plane.layout.rows, plane.layout.columns, spacing), []).append(plane)
    found = [
        [group[m] for m in members]
        for group in groups.values()
        for members in cluster_orientations([p.orientation or () for p in group])
    ]
    wanted = [s for s in found if needs.orientation in {"any", plane_of(s[0].orientation or ())}]
    if not wanted:
        raise NotProcessable("mixed_orientation", f"no {needs.orientation} images")
    best = max(wanted, key=lambda s: (len(s), s[0].recency[2]))
    if len(found) > 1:
        if len(best) < needs.min_slices <= len(placed):
            raise NotProcessable("mixed_orientation", "the images do not form one stack")
        flags.append("other_orientations_left_out")
    return best, flags


def quality_flags(kept: Sequence[PlaneImage], lossy: LossyPolicy) -> list[str]:
    """Return what is odd about the headers of the planes. Raises NotProcessable("lossy_not_allowed")."""
    flags = []
    references = {p.frame_of_reference for p in kept}
    if "" in references:
        flags.append("frame_of_reference_missing")
    if len(references) > 1:
        flags.append("frame_of_reference_inconsistent")
    if len({(p.rescale.slope, p.rescale.intercept) for p in kept}) > 1:
        flags.append("rescale_varies")
    if len(kept) == 1:
        flags.append("single_plane")
    if any(p.lossy for p in kept):
        ratios = [p.lossy_ratio for p in kept if p.lossy_ratio is not None]
        if refuses_lossy(lossy, lossy=True, ratio=max(ratios, default=None)):
            raise NotProcessable("lossy_not_allowed", "compressed beyond what the detector accepts")
        if lossy.flag:
            flags.append("lossy")
    return flags + sorted({flag for p in kept for flag in p.rescale.flags})


def _read(kept: Sequence[PlaneImage], threads: int) -> FloatArray:
    layout = kept[0].layout
    if len(kept) * layout.rows * layout.columns > MAX_VOXELS:
        raise NotProcessable("too_large", "more voxels than a section stack has")
    voxels = np.empty((len(kept), layout.rows, layout.columns), dtype=np.float32)

    def fill(index: int) -> None:
        plane = kept[index]
        apply(plane.stored(), plane.rescale, plane.layout, voxels[index])

    if threads > 1:
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            for _ in pool.map(fill, range(len(kept))):
                pass
    else:
        for index in range(len(kept)):
            fill(index)
    return voxels


def _volume(
    kept: Sequence[PlaneImage],
    geometry: StackGeometry,
    orientation: tuple[float, ...],
    voxels: FloatArray,
    flags: Sequence[str],
) -> Volume:
    row, column, _ = unit_axes(orientation)
    spacing = kept[0].pixel_spacing
    assert spacing is not None
    return Volume(
        voxels=voxels,
        origins=np.asarray([p.origin for p in kept], dtype=np.float64),
        row_direction=row,
        column_direction=column,
        pixel_spacing=(spacing[0], spacing[1]),
        weights_mm=geometry.weights_mm,
        frames=tuple(p.ref for p in kept),
        tilt_deg=geometry.tilt_deg,
        flags=tuple(dict.fromkeys(flags)),
    )
