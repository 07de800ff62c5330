"""Finished pieces of a run on disk: one Parquet file per chunk, written whole or not at all.

The folder is named by the plan hash, so pieces of different plans never mix. The same piece written twice has the same
content: a chunk that ran twice counts once.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from wetread.core.errors import StorageFull
from wetread.core.ruo import RUO_STATEMENT
from wetread.pathology.errors import PlanTooLarge

DONE: Final = "done"
FAILED: Final = "failed"
_NAME: Final = re.compile(r"part-(\d{8})-(\d{5})\.parquet")
_BYTES_PER_TILE: Final = 160
_RESERVE_BYTES: Final = 64 << 20
Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Results of consecutive tiles ``first .. first + count - 1`` of a plan.

    ``values``: one float32 column per name; ``embedding`` float16[count, width] or None; ``points``: nuclei of each
    tile, float32[n, 2] in level-0 pixels.
    """

    first: int
    status: list[str]
    error: list[str]
    values: Columns
    embedding: npt.NDArray[np.float16] | None = None
    points: list[npt.NDArray[np.float32]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.status)


class PartMirror(Protocol):
    """A second place for parts that outlives this machine, such as a bucket. Putting a part twice is harmless."""

    def put(self, name: str, data: bytes) -> None:
        """Keep a part durably. Raises StorageFull, Unavailable."""

    def get(self, name: str) -> bytes:
        """Return a part. Raises NotFound, Unavailable."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the parts kept below *folder*. Raises Unavailable."""


class PartStore:
    """The folder of one plan's parts, and the mirror that each finished part also goes to."""

    def __init__(self, folder: Path, mirror: PartMirror | None = None) -> None:
        self._folder, self._mirror = folder, mirror

    def prepare(self, tiles: int, *, fresh: bool = False) -> None:
        """Make the folder; *fresh* forgets what is in it. Raises PlanTooLarge when the disk cannot hold the plan."""
        if fresh and self._folder.exists():
            shutil.rmtree(self._folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        needed = tiles * _BYTES_PER_TILE * 2 + _RESERVE_BYTES  # the parts, and the one table merged from them
        if free < needed:
            raise PlanTooLarge(f"{tiles} tiles need about {needed >> 20} MiB, {free >> 20} MiB are free")
        for stray in self._folder.glob("*.tmp"):
            stray.unlink(missing_ok=True)
        if self._mirror is not None:
            for name in self._mirror.names(self._folder.name):
                path = self._folder / name
                if _NAME.fullmatch(name) and not path.exists():
                    path.write_bytes(self._mirror.get(f"{self._folder.name}/{name}"))

    def write(self, rows: Rows) -> None:
        """Write a part: temporary file, sync, rename. Raises StorageFull."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = self._folder / f"part-{rows.first:08d}-{rows.count:05d}.parquet"
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        columns: dict[str, Any] = {
            "tile": pa.array(np.arange(rows.first, rows.first + rows.count, dtype=np.int32)),
            "status": pa.array(rows.status),
            "error": pa.array(rows.error),
        }
        columns |= {name: pa.array(values) for name, values in rows.values.items()}
        if rows.embedding is not None:
            width = rows.embedding.shape[1]
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(pa.array(rows.embedding.ravel()), width)
        if rows.points:
            columns["nuclei_xy"] = pa.array([p.ravel() for p in rows.points], type=pa.list_(pa.float32()))
        try:
            with temporary.open("wb") as file:
                pq.write_table(pa.table(columns), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise StorageFull("a part cannot be written: is the disk full?") from error
        if self._mirror is not None:
            self._mirror.put(f"{self._folder.name}/{path.name}", path.read_bytes())

    def finished(self, tiles: int) -> npt.NDArray[np.bool_]:
        """Return which of *tiles* tiles have a readable row; a broken or foreign part is deleted."""
        done = np.zeros(tiles, dtype=bool)
        for first, count, path in self._listed():
            if self._sound(path, first, count) and first + count <= tiles:
                done[first : first + count] = True
            else:
                path.unlink(missing_ok=True)
        return done

    def read(self) -> Iterator[Any]:
        """Yield the parts as Arrow tables in tile order, each tile once."""
        import pyarrow.parquet as pq

        upto = 0
        for first, count, path in self._listed():
            if first + count <= upto:
                continue
            table = pq.read_table(path)
            yield table.slice(upto - first) if first < upto else table
            upto = first + count

    def merge(self, path: Path, plan: Columns, metadata: Mapping[str, str]) -> int:
        """Write all parts as one table with the plan's columns beside them; return the number of rows.

        A row group per part: nothing is held but the part at hand. No times and no machine facts, so two runs of one
        plan give equal content.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        written = 0
        notes = {**{k: str(v) for k, v in metadata.items()}, "research_use": RUO_STATEMENT}
        writer: Any = None
        temporary = path.with_suffix(".tmp")
        try:
            for part in self.read():
                at, table = part.column("tile").to_numpy(), part
                for position, (name, values) in enumerate(plan.items(), 1):
                    table = table.add_column(position, name, pa.array(values[at]))
                if writer is None:
                    writer = pq.ParquetWriter(temporary, table.schema.with_metadata(notes), compression="zstd")
                writer.write_table(table.replace_schema_metadata(notes).cast(writer.schema))
                written += len(table)
            if writer is None:
                empty = {"tile": pa.array([], pa.int32())} | {k: pa.array(v[:0]) for k, v in plan.items()}
                pq.write_table(pa.table(empty).replace_schema_metadata(notes), temporary)
        except OSError as error:
            raise StorageFull("the table cannot be written: is the disk full?") from error
        finally:
            if writer is not None:
                writer.close()
        temporary.replace(path)
        return written

    def _listed(self) -> list[tuple[int, int, Path]]:
        found = [(_NAME.fullmatch(path.name), path) for path in self._folder.glob("part-*.parquet")]
        return sorted(((int(m[1]), int(m[2]), path) for m, path in found if m), key=lambda part: (part[0], -part[1]))

    @staticmethod
    def _sound(path: Path, first: int, count: int) -> bool:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            tiles = pq.read_table(path, columns=["tile"]).column("tile").to_numpy()
        except (OSError, pa.ArrowException):
            return False
        return len(tiles) == count and bool((tiles == np.arange(first, first + count)).all())
