"""Where slides lie: files, folders, objects of S3, series behind a DICOMweb server; each opened the same way."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, Self

import httpx
from pydicom import Dataset

from wetread.adapters.dicomweb.frames import GatewayTiles, SeriesFrames
from wetread.core.errors import ConfigurationError
from wetread.pathology.errors import SeriesNotSuitable
from wetread.pathology.slide.dicom import frame_grid, is_level, level_of, mpp_of, read_dicom_header
from wetread.pathology.slide.index import OpenedSlide, Pyramid
from wetread.pathology.slide.open import Choice, ChosenReader, local_sources, open_native, open_slide
from wetread.pathology.slide.selfcheck import Verdict
from wetread.pathology.slide.slide import Slide, local_path
from wetread.pathology.slide.source import RangeSource, read_merged

_TIMEOUT_SECONDS = 60.0
_STORED: Final = "stored://"


class SlideLocation:
    """A slide by its location; nothing is opened before it is asked for. A context manager that closes all."""

    def __init__(self, location: str) -> None:
        self.location = location
        self._sources: list[RangeSource] | None = None
        self._headers: list[Dataset] | None = None

    @property
    def remote(self) -> bool:
        """True for a series behind a DICOMweb server."""
        return self.location.startswith(("http://", "https://"))

    @property
    def sources(self) -> list[RangeSource]:
        """The bytes of the slide; empty for a series behind a server. Raises SlideUnreadable, ConfigurationError."""
        if self._sources is None:
            self._sources = [] if self.remote else sources_of(self.location)
        return self._sources

    @property
    def is_dicom(self) -> bool:
        """Whether the slide is DICOM already."""
        return self.remote or self.sources[0].read(128, 4) == b"DICM"

    def open(self, choice: Choice = "auto") -> ChosenReader:
        """Open it with the reader that gives the right pixels. Raises the refusals of ``pathology.errors``."""
        if not self.remote:
            return open_slide(self.sources, choice)
        if choice == "openslide":
            raise ConfigurationError("OpenSlide reads local files only")
        slide, self._headers = gateway_slide(series_client(self.location))
        return ChosenReader(slide, native=True, verdict=Verdict(0), reason="")

    def open_native(self) -> Slide:
        """Open it with the native reader, unchecked: what workers do."""
        return gateway_slide(series_client(self.location))[0] if self.remote else open_native(self.sources)

    def level_headers(self) -> list[Dataset]:
        """Return the headers of the levels, finest first; empty when the slide is no DICOM."""
        if self._headers is None:
            self._headers = _levels(map(read_dicom_header, self.sources)) if self.is_dicom else []
        return self._headers

    def close(self) -> None:
        """Close what was opened here."""
        for source in self._sources or ():
            source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sources_of(location: str) -> list[RangeSource]:
    """Return the bytes of a slide: a file, a folder of DICOM files, or ``s3://bucket/key``.

    Raises SlideUnreadable, ConfigurationError (missing extra).
    """
    path = local_path(location)
    if path is not None:
        return local_sources(path)
    if location.startswith(_STORED):
        return _stored_levels(location)
    if location.startswith("s3://"):
        from wetread.adapters.objectstore.ranges import open_object

        return [open_object(location, merge=read_merged)]
    raise ConfigurationError("slides are files, folders, s3:// objects or series at http(s)://")


def stored_location(levels: Iterable[tuple[str, int]]) -> str:
    """Return the location of a slide in this installation's object store: (locator, length) of each level."""
    return _STORED + json.dumps([list(level) for level in levels])


def _stored_levels(location: str) -> list[RangeSource]:
    from wetread.bootstrap.stores import object_store
    from wetread.core.ports.objects import ObjectRef
    from wetread.pathology.slide.stored import StoredInstance
    from wetread.settings import Settings

    store = object_store(Settings(), "slides")
    return [StoredInstance(store, ObjectRef(*level)) for level in json.loads(location.removeprefix(_STORED))]


def series_client(url: str) -> httpx.Client:
    """Return a client for the WADO-RS URL of a series; ``WETREAD_API_KEY`` is sent when it is set."""
    import os

    key = os.environ.get("WETREAD_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=url.rstrip("/") + "/", headers=headers, timeout=_TIMEOUT_SECONDS)


def gateway_slide(client: httpx.Client) -> tuple[Slide, list[Dataset]]:
    """Open the series that *client* is about; return it with its level headers.

    Raises SeriesNotSuitable, SlideUnreadable, NotFound, Unavailable.
    """
    frames = SeriesFrames(client)
    headers = _levels(Dataset.from_json(_without_bulk(item)) for item in frames.metadata())
    if not headers:
        raise SeriesNotSuitable("the series holds no VOLUME instance")
    if len({str(header.get("FrameOfReferenceUID", "")) for header in headers}) > 1:
        raise SeriesNotSuitable("the levels lie in several frames of reference")
    levels = [level_of(header) for header in headers]
    instances = tuple(str(header.SOPInstanceUID) for header in headers)
    grids = [frame_grid(header, level).tolist() for header, level in zip(headers, levels, strict=True)]
    pyramid = Pyramid(tuple(levels), mpp_of(headers[0]), "dicom", "dicom", {}, instances)
    return Slide(OpenedSlide(pyramid, GatewayTiles(frames, instances, grids))), headers


def _levels(headers: Any) -> list[Dataset]:
    return sorted(filter(is_level, headers), key=lambda header: -int(header.TotalPixelMatrixColumns))


def _without_bulk(item: Any) -> Any:
    """Return a DICOM JSON object without what lies elsewhere: pixels and profiles are not fetched for a header."""
    if isinstance(item, dict):
        return {k: _without_bulk(v) for k, v in item.items() if not (isinstance(v, dict) and "BulkDataURI" in v)}
    return [_without_bulk(v) for v in item] if isinstance(item, list) else item
