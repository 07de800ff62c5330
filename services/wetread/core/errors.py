"""The error tree of wetread. Every error that crosses a module border is one of these.

::

    WetreadError                     500
    |- InvalidInput                  400   the caller sent something that cannot be understood
    |  |- MalformedMultipart         400
    |  |- UnsupportedMediaType       415
    |  |- NotAcceptable              406
    |  |- PayloadTooLarge            413
    |  `- Unprocessable              422   understood, but the content is not usable (has a ``code``)
    |- InstanceRejected              409   one instance of a STOW request, carries a failure reason
    |- NotAuthenticated              401
    |- Forbidden                     403
    |- NotFound                      404
    |  `- Gone                       410
    |- Conflict                      409
    |  `- WorkitemStateError         400/409  UPS state machine, carries the DICOM status (PS3.4 CC)
    |- NotApplicable                 422   a detector does not apply to a study (typed reason)
    |- NotProcessable                422   the data do not allow the computation (typed reason)
    |- ComputationFailed             500   our fault: timeout, crashed, out_of_memory, ...
    |- TooManyRequests               429   a tenant's rate or number of requests at a time
    |- Unavailable                   503   a dependency is down, or there is too much to do: try again
    |- StorageFull                   507
    |- QuotaExceeded                 507   a tenant's room is used up
    |- CorruptRecord                 500   stored bytes do not match their checksum
    `- ConfigurationError            500   settings, manifests, workflow files

HTTP status, problem+json ``type`` and, where DICOM asks for one, the status code live on the class
(RFC 9457; PS3.18 8.5, table 10.5.3-1). They are translated once, at the edge.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WetreadError(Exception):
    """Root of the tree. ``detail`` is safe to show to the caller: never patient data."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    transient: ClassVar[bool] = False
    """True when the same call may succeed later: durable steps retry only these."""

    def __init__(self, detail: str = "", *, dicom_status: int | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.dicom_status = dicom_status
        self.headers: dict[str, str] = {}
        """Headers that the answer carries beside the problem object, such as ``Warning`` (PS3.18 11.7.3.2)."""

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        """Return the RFC 9457 problem object; ``dicom_status`` is a hex string as in PS3.7 C."""
        body: dict[str, Any] = {
            "type": f"urn:wetread:problem:{self.slug}",
            "title": self.title,
            "status": self.http_status,
            "detail": self.detail,
        }
        if instance is not None:
            body["instance"] = instance
        if self.dicom_status is not None:
            body["dicom_status"] = f"{self.dicom_status:04X}"
        return body

    @property
    def http_status(self) -> int:
        """HTTP status of this error; a subclass may decide per instance."""
        return self.status


class InvalidInput(WetreadError):
    status, slug, title = 400, "invalid-input", "Invalid input"


class MalformedMultipart(InvalidInput):
    slug, title = "malformed-multipart", "Malformed multipart body"


class UnsupportedMediaType(InvalidInput):
    status, slug, title = 415, "unsupported-media-type", "Unsupported media type"


class NotAcceptable(InvalidInput):
    status, slug, title = 406, "not-acceptable", "Not acceptable"


class PayloadTooLarge(InvalidInput):
    status, slug, title = 413, "payload-too-large", "Payload too large"


class Unprocessable(InvalidInput):
    """Well-formed input whose content cannot be used; ``code`` is stable and documented."""

    status, slug, title = 422, "unprocessable", "Unprocessable content"

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(detail or code)
        self.code = code

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        return {**super().problem(instance), "code": self.code}


class InstanceRejected(WetreadError):
    """One instance was refused. ``reason`` is the (0008,1197) Failure Reason (PS3.18 annex I.2)."""

    status, slug, title = 409, "instance-rejected", "Instance rejected"

    def __init__(self, reason: int, detail: str) -> None:
        super().__init__(detail, dicom_status=reason)
        self.reason = reason


class NotAuthenticated(WetreadError):
    status, slug, title = 401, "not-authenticated", "Authentication required"


class Forbidden(WetreadError):
    status, slug, title = 403, "forbidden", "Forbidden"


class NotFound(WetreadError):
    status, slug, title = 404, "not-found", "Not found"


class Gone(NotFound):
    status, slug, title = 410, "gone", "Gone"


class Conflict(WetreadError):
    status, slug, title = 409, "conflict", "Conflict"


class WorkitemStateError(Conflict):
    """A UPS request that its state machine refuses (PS3.4 CC.2, PS3.18 11)."""

    slug, title = "workitem-state", "Workitem state does not allow this"

    def __init__(self, detail: str, *, dicom_status: int, http_status: int) -> None:
        super().__init__(detail, dicom_status=dicom_status)
        self._http_status = http_status

    @property
    def http_status(self) -> int:
        return self._http_status


class _Reasoned(WetreadError):
    """An outcome with a typed reason that ends in the study's state, never in a stack trace."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason

    def problem(self, instance: str | None = None) -> dict[str, Any]:
        return {**super().problem(instance), "reason": self.reason}


class NotApplicable(_Reasoned):
    status, slug, title = 422, "not-applicable", "Detector does not apply to this study"


class NotProcessable(_Reasoned):
    status, slug, title = 422, "not-processable", "The data do not allow this computation"


class ComputationFailed(_Reasoned):
    status, slug, title = 500, "computation-failed", "The computation failed"


class Unavailable(WetreadError):
    """A dependency is down. ``retry_after``: seconds it asked to be left alone, if it said so."""

    status, slug, title = 503, "unavailable", "Temporarily unavailable"
    transient = True

    def __init__(self, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class TooManyRequests(WetreadError):
    """A tenant asks more than its share (RFC 6585 4). ``retry_after``: seconds until it may again."""

    status, slug, title = 429, "too-many-requests", "Too many requests"
    transient = True

    def __init__(self, detail: str = "", *, retry_after: float) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class StorageFull(WetreadError):
    status, slug, title = 507, "storage-full", "Insufficient storage"
    transient = True


class QuotaExceeded(WetreadError):
    """A tenant's room is used up: waiting does not help, deleting does (RFC 4918 11.5; PS3.18 table I.2-1, A700)."""

    status, slug, title = 507, "quota-exceeded", "Storage quota exceeded"


class CorruptRecord(WetreadError):
    status, slug, title = 500, "corrupt-record", "A stored record failed its checksum"


class ConfigurationError(WetreadError):
    status, slug, title = 500, "configuration", "Configuration error"
