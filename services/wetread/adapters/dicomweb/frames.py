"""Frames of a series behind a DICOMweb server, as they are stored (PS3.18 10.4.1.1.6): no decoding on either side."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import httpx

from wetread.core.dicomweb.media_types import parse_media_type
from wetread.core.dicomweb.multipart import MultipartSplitter, PartBegin, PartData
from wetread.core.errors import NotFound, Unavailable, WetreadError

FRAMES_PER_REQUEST: Final = 32
_PAUSES_SECONDS: Final = (0.5, 2.0, 8.0)
"""Before the second, third and fourth attempt: a server that restarts does not end a run of hours."""
_LONGEST_PAUSE_SECONDS: Final = 30.0
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
_ACCEPT: Final = (
    'multipart/related; type="image/jpeg"; transfer-syntax=*, multipart/related; type="image/jp2"; transfer-syntax=*, '
    'multipart/related; type="application/octet-stream"; transfer-syntax=*'
)


class SeriesFrames:
    """Frames by instance and number. ``client``: an httpx client whose base URL is the series' WADO-RS URL."""

    def __init__(self, client: httpx.Client, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._client, self._sleep = client, sleep
        self.requests = 0
        self.bytes_read = 0

    def metadata(self) -> list[Mapping[str, Any]]:
        """Return the DICOM JSON object of each instance, with its stored transfer syntax in (0008,3002)."""
        instances: list[dict[str, Any]] = self._get("metadata", "application/dicom+json").json()
        found = self._get("instances?includefield=00083002", "application/dicom+json")
        listed = found.json() if found.status_code == httpx.codes.OK else []
        syntaxes = {_value(item, "00080018"): item["00083002"] for item in listed if "00083002" in item}
        for instance in instances:
            uid = _value(instance, "00080018")
            if uid in syntaxes:
                instance["00083002"] = syntaxes[uid]
        return list(instances)

    def frames(self, sop_instance_uid: str, numbers: Sequence[int]) -> list[bytes]:
        """Return frames by 1-based number, in the order asked, as stored. Raises NotFound, Unavailable."""
        found: list[bytes] = []
        for start in range(0, len(numbers), FRAMES_PER_REQUEST):
            wanted = numbers[start : start + FRAMES_PER_REQUEST]
            answer = self._get(f"instances/{sop_instance_uid}/frames/{','.join(map(str, wanted))}", _ACCEPT)
            parts = _parts(answer)
            if len(parts) != len(wanted):
                raise Unavailable(f"the server sent {len(parts)} frames of {len(wanted)}")
            found += parts
        return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _get(self, path: str, accept: str) -> httpx.Response:
        for pause in _PAUSES_SECONDS:
            try:
                answer = self._ask(path, accept)
            except Unavailable:
                self._sleep(pause)
                continue
            if answer.status_code not in _BUSY:
                return self._checked(answer)
            self._sleep(max(pause, _retry_after(answer)))
        return self._checked(self._ask(path, accept))

    def _ask(self, path: str, accept: str) -> httpx.Response:
        self.requests += 1
        try:
            return self._client.get(path, headers={"Accept": accept})
        except httpx.HTTPError as error:
            raise Unavailable("the DICOMweb server cannot be reached") from error

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFound("the DICOMweb server has no such series or frame")
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise Unavailable(f"the DICOMweb server answered {answer.status_code}")
        self.bytes_read += len(answer.content)
        return answer


class GatewayTiles:
    """Native tiles of a slide by level and number. ``grids[level]``: 0-based frame of each tile, -1 for none."""

    def __init__(self, frames: SeriesFrames, instances: Sequence[str], grids: Sequence[Sequence[int]]) -> None:
        self._frames, self._instances = frames, list(instances)
        self._grids = [list(map(int, grid)) for grid in grids]

    def fetch(self, level: int, tiles: Sequence[int]) -> list[bytes]:
        """Return each tile's bytes; empty for one that the slide leaves out."""
        numbers = [self._grids[level][tile] + 1 for tile in tiles]
        wanted = sorted({number for number in numbers if number})
        found = dict(zip(wanted, self._frames.frames(self._instances[level], wanted), strict=True)) if wanted else {}
        return [found[number] if number else b"" for number in numbers]

    def fetch_one(self, level: int, tile: int) -> bytes:
        """Return one tile's bytes."""
        return self.fetch(level, (tile,))[0]

    def header_digest(self) -> str:
        """Return the SHA-256 over instances and frame order: instances never change under their UID."""
        return hashlib.sha256(json.dumps([self._instances, self._grids]).encode()).hexdigest()

    def close(self) -> None:
        """Close the connections."""
        self._frames.close()


def _retry_after(answer: httpx.Response) -> float:
    """Return how many seconds a busy server asks to be left alone, as far as we follow."""
    text = answer.headers.get("retry-after", "")
    return min(float(text), _LONGEST_PAUSE_SECONDS) if text.isascii() and text.isdecimal() else 0.0


def _value(item: Mapping[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value", [""])
    return str(values[0])


def _parts(answer: httpx.Response) -> list[bytes]:
    try:
        media = parse_media_type(answer.headers.get("content-type", ""))
        splitter = MultipartSplitter(media.parameters["boundary"])
        parts: list[bytearray] = []
        for event in [*splitter.feed(answer.content), *splitter.finish()]:
            if isinstance(event, PartBegin):
                parts.append(bytearray())
            elif isinstance(event, PartData):
                parts[-1].extend(event.data)
    except (KeyError, WetreadError) as error:
        raise Unavailable("the DICOMweb server sent no multipart answer") from error
    return [bytes(part) for part in parts]
