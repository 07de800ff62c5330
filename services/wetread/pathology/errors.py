"""What can be wrong with a slide or a run over it. Each names the exit code of ``wetread pathology``.

Exit codes: 0 complete (also no tissue), 2 usage or missing extra, 3 partial, 4 input refused, 5 stopped and
resumable, 6 a conversion would have changed pixels.
"""

from __future__ import annotations

from typing import ClassVar

from wetread.core.errors import ComputationFailed, Conflict, NotProcessable, WetreadError

PARTIAL = 3
REFUSED = 4
RESUMABLE = 5
LOST = 6


class SlideRefused(NotProcessable):
    """The input cannot be used as it is; ``reason`` is the typed one of the study's AI state."""

    exit_code: ClassVar[int] = REFUSED
    why: ClassVar[str] = "slide_unreadable"

    def __init__(self, detail: str) -> None:
        super().__init__(self.why, detail)


class SlideUnreadable(SlideRefused):
    slug, title = "slide-unreadable", "The slide cannot be read"


class SeriesNotSuitable(SlideRefused):
    slug, title, why = "series-not-suitable", "The series is no slide pyramid", "series_not_suitable"


class MppMissing(SlideRefused):
    slug, title, why = "mpp-missing", "The slide does not say its resolution", "mpp_missing"


class MppTooCoarse(SlideRefused):
    slug, title, why = "mpp-too-coarse", "The slide is coarser than the analysis needs", "mpp_too_coarse"


class PlanTooLarge(SlideRefused):
    slug, title, why = "plan-too-large", "The plan needs more room than there is", "plan_too_large"


class ResultsNotDicom(SlideRefused):
    slug, title, why = "no-dicom-source", "DICOM results need a DICOM source", "no_dicom_source"


class SlideChanged(Conflict):
    """The slide is not the one that was opened: its pixels are never mixed."""

    slug, title = "slide-changed", "The slide changed while it was read"
    exit_code: ClassVar[int] = RESUMABLE


class TileUnreadable(WetreadError):  # noqa: N818 - named like its neighbours
    """One native tile is missing or corrupt: the tiles that need it fail, the others do not."""

    status, slug, title = 422, "tile-unreadable", "A tile of the slide cannot be decoded"


class RunStopped(ComputationFailed):
    """The run ended early and can be resumed: finished parts are kept."""

    slug, title = "run-stopped", "The run stopped before its end"
    exit_code: ClassVar[int] = RESUMABLE


class PassThroughLost(NotProcessable):
    """A converted frame is not its source tile: outputs were deleted."""

    slug, title = "pass-through-lost", "The conversion would have changed pixels"
    exit_code: ClassVar[int] = LOST

    def __init__(self, detail: str) -> None:
        super().__init__("pass_through_lost", detail)


def exit_code(error: WetreadError) -> int:
    """Return the exit code that *error* ends a command with."""
    resumable = error.transient or isinstance(error, Conflict)
    return int(getattr(error, "exit_code", RESUMABLE if resumable else REFUSED))
