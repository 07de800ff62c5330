"""Stored instances and frames in other transfer syntaxes, by the codecs' processes and at most once at a time.

What the codecs refuse is ``Undecodable`` here: a 406, because the stored form can still be had (PS3.18 8.7.3.4).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from wetread.core.errors import NotAcceptable, NotProcessable
from wetread.core.ports.archive import ArchivedInstance
from wetread.core.ports.objects import ObjectStore
from wetread.core.ports.pixels import FrameCodecs, FrameLayout, FrameSamples
from wetread.gateway.singleflight import SingleFlight

Value = TypeVar("Value")


class Undecodable(NotAcceptable):
    """No installed codec can do it (or the stored frames are damaged): they can only be had as stored."""

    slug, title = "undecodable", "The stored pixel data cannot be decoded"


class Transcoder:
    """``cache``: keeps results that are asked for again, such as the frames of a series that is scrolled through."""

    def __init__(self, codecs: FrameCodecs, objects: ObjectStore, cache: SingleFlight) -> None:
        self._codecs = codecs
        self._objects = objects
        self.cache = cache

    @property
    def targets(self) -> frozenset[str]:
        """Compressed transfer syntaxes that can be made."""
        return self._codecs.targets

    def instance(self, tenant: str, item: ArchivedInstance, target: str) -> bytes:
        """Return the PS3.10 file of *item* in *target*. Raises Undecodable."""
        return self._once(
            (tenant, item.content_hash, "instance", target),
            lambda: self._codecs.transcode(self._objects.read(item.ref), target),
            len,
        )

    def unpack(
        self,
        tenant: str,
        item: ArchivedInstance,
        number: int,
        stored: Callable[[], bytes],
        layout: FrameLayout,
        *,
        rgb: bool,
    ) -> FrameSamples:
        """Return the values of frame *number* of a compressed instance. Raises Undecodable."""
        return self._once(
            (tenant, item.content_hash, "samples", number, rgb),
            lambda: self._codecs.unpack(stored(), item.transfer_syntax_uid, layout, rgb=rgb),
            lambda samples: len(samples.values),
        )

    def pack(
        self, tenant: str, item: ArchivedInstance, number: int, values: bytes, layout: FrameLayout, target: str
    ) -> bytes:
        """Return frame *number* compressed as *target*. Raises Undecodable."""
        return self._once(
            (tenant, item.content_hash, "frame", number, target),
            lambda: self._codecs.pack(values, layout, target),
            len,
        )

    def _once(self, key: Hashable, compute: Callable[[], Value], size: Callable[[Value], int]) -> Value:
        try:
            return self.cache.get(key, compute, size)
        except NotProcessable as error:
            raise Undecodable(error.detail) from error
