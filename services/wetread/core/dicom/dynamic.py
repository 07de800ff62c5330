"""Assembly of a dynamic series: the same planes imaged again and again become one ``DynamicVolume``.

Position decides which plane an image shows, as in ``volume``; a clock of the headers decides when. Every plane must
have been imaged equally often. Nothing is resampled, neither in space nor in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt

from wetread.core.detector import Cine, DynamicVolume, FloatArray, Volume
from wetread.core.dicom.cine import assemble_cine
from wetread.core.dicom.clocks import trusted_times
from wetread.core.dicom.planes import PlaneImage, read_planes
from wetread.core.dicom.rescale import apply
from wetread.core.dicom.selection import shortfall
from wetread.core.dicom.stacking import DUPLICATE_MM, StackGeometry, arrange, unit_axes
from wetread.core.dicom.volume import MAX_VOXELS, assemble, one_stack, quality_flags
from wetread.core.errors import NotProcessable
from wetread.core.manifest import InputNeeds, TimeNeeds
from wetread.core.ports.pixels import FrameDecoder

_TIME_FLAGS: Final = frozenset({"duplicates_dropped"})
"""Flags of a stack that mean nothing here: one place is meant to hold many images."""


def assemble_input(
    objects: Sequence[bytes], decoder: FrameDecoder, needs: InputNeeds, *, threads: int = 1
) -> Volume | DynamicVolume | Cine:
    """Assemble what a manifest asks for: a volume, a dynamic one when it names needs of time, or a clip.

    Raises NotProcessable like ``volume.assemble``, ``assemble_dynamic`` and ``cine.assemble_cine``.
    """
    if needs.cine is not None:
        return assemble_cine(objects, decoder, needs, needs.cine, threads=threads)
    if needs.time is None:
        return assemble(objects, decoder, needs=needs.series, lossy=needs.lossy, threads=threads)
    return assemble_dynamic(objects, decoder, needs, needs.time, threads=threads)


def assemble_dynamic(
    objects: Sequence[bytes], decoder: FrameDecoder, needs: InputNeeds, time: TimeNeeds, *, threads: int = 1
) -> DynamicVolume:
    """Assemble the images of *objects* (PS3.10 bytes, any order) into a volume with a time axis.

    Raises NotProcessable: everything of ``volume.assemble``, and no_time (no clock tells the images apart),
    missing_time_points (planes imaged unequally often), too_few_time_points, irregular_time, truncated_time.
    """
    everything = [plane for data in objects for plane in read_planes(data, decoder)]
    planes, flags = one_stack(everything, needs.series)
    orientation = planes[0].orientation
    assert orientation is not None
    origins = np.asarray([p.origin for p in planes], dtype=np.float64)
    geometry = arrange(origins, orientation, [p.recency for p in planes])
    lack = shortfall(geometry, needs.series)
    if lack is not None:
        raise NotProcessable(*lack)
    order, times = _time_order(planes, geometry, origins @ np.cross(*unit_axes(orientation)[:2]))
    check_times(times, time)
    first = [planes[k] for k in order[0]]
    flags += [f for f in geometry.flags if f not in _TIME_FLAGS]
    flags += quality_flags([planes[k] for k in order.ravel()], needs.lossy)
    dynamic = _read(planes, order, threads)
    row, column, _ = unit_axes(orientation)
    spacing = first[0].pixel_spacing
    assert spacing is not None
    return DynamicVolume(
        voxels=dynamic[0],
        origins=origins[order[0]],
        row_direction=row,
        column_direction=column,
        pixel_spacing=(spacing[0], spacing[1]),
        weights_mm=geometry.weights_mm,
        frames=tuple(p.ref for p in first),
        tilt_deg=geometry.tilt_deg,
        flags=tuple(dict.fromkeys(flags)),
        dynamic=dynamic,
        times_s=times,
        modality=first[0].modality,
    )


def check_times(times_s: npt.NDArray[np.float64], needs: TimeNeeds) -> None:
    """Check the sampling in time, [time, plane]. Raises NotProcessable with the reason."""
    points = len(times_s)
    if points < max(needs.min_points, 2):
        raise NotProcessable("too_few_time_points", f"{points} time points of at least {needs.min_points}")
    largest = float(np.diff(times_s, axis=0).max())
    if needs.max_step_s is not None and largest > needs.max_step_s:
        raise NotProcessable("irregular_time", f"{largest:.1f} s without an image, at most {needs.max_step_s:g} s")
    duration = float((times_s[-1] - times_s[0]).min())
    if needs.min_duration_s is not None and duration < needs.min_duration_s:
        raise NotProcessable("truncated_time", f"{duration:.0f} s imaged, at least {needs.min_duration_s:g} s needed")


def _time_order(
    planes: Sequence[PlaneImage], geometry: StackGeometry, heights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return which image shows which plane at which time, [time, plane], and the seconds of each."""
    places = np.searchsorted(geometry.positions_mm, heights - DUPLICATE_MM)
    places = np.minimum(places, len(geometry.positions_mm) - 1)
    seconds = trusted_times([p.clocks() for p in planes], places.tolist())
    counts = np.bincount(places, minlength=len(geometry.order))
    if counts.max() == 1:
        raise NotProcessable("too_few_time_points", "every plane was imaged once")
    if seconds is None:
        raise NotProcessable("no_time", "no clock of the headers tells the images of a plane apart")
    if counts.min() < counts.max():
        raise NotProcessable("missing_time_points", f"planes imaged {counts.min()} to {counts.max()} times")
    instants = np.asarray(seconds, dtype=np.float64)
    by_place = np.lexsort((instants, places)).reshape(len(counts), -1)
    return by_place.T, instants[by_place.T]


def _read(planes: Sequence[PlaneImage], order: npt.NDArray[np.intp], threads: int) -> FloatArray:
    layout = planes[0].layout
    shape = (*order.shape, layout.rows, layout.columns)
    if int(np.prod(shape)) > MAX_VOXELS:
        raise NotProcessable("too_large", "more voxels than a dynamic series has")
    dynamic = np.empty(shape, dtype=np.float32)

    def fill(place: tuple[int, int]) -> None:
        plane = planes[order[place]]
        apply(plane.stored(), plane.rescale, plane.layout, dynamic[place])

    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="decode") as pool:
        for _ in pool.map(fill, np.ndindex(order.shape)):
            pass
    return dynamic
