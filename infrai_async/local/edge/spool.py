"""A body that comes once and is read by many, also while it is still coming.

It lies in memory while it is small, and then in a file without a name, which the system removes with the last that has
it open, however this process ends. Beyond its capacity it is a ring: then it comes as fast as the slowest reads it.
"""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from tempfile import SpooledTemporaryFile
from types import TracebackType
from typing import Final, Self

IN_MEMORY: Final = 2**20
_CHUNK: Final = 2**17


class BodyIncomplete(Exception):
    """The body ended before it was complete."""


class Spool:
    """Bytes, those that there are so far.

    Attributes:
        size: how many came.
        complete: no more will come, and none is missing.
        broken: no more will come, though some are missing.
    """

    def __init__(self, capacity: int, directory: Path) -> None:
        self.size = 0
        self.complete = False
        self.broken = False
        self._capacity = capacity
        self._file = SpooledTemporaryFile[bytes](max_size=IN_MEMORY, dir=str(directory))
        weakref.finalize(self, self._file.close)
        self._readers: set[SpoolReader] = set()
        self._came = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def whole(self) -> bool:
        """Whether its first byte is still there."""
        return self.size <= self._capacity

    @property
    def joinable(self) -> bool:
        """Whether it can be read from its first byte and, as far as is known, to its last."""
        return self.whole and not self.broken

    @property
    def in_memory(self) -> bool:
        """Whether it occupies memory rather than a file."""
        return self.size <= IN_MEMORY

    async def append(self, chunk: bytes) -> None:
        """Add bytes, once every reader is done with those whose place they take."""
        while self.size + len(chunk) - self._capacity > min((reader.position for reader in self._readers), default=0):
            self._room.clear()
            await self._room.wait()
        start = self.size % self._capacity
        head = chunk[: self._capacity - start]
        self._write(start, head)
        self._write(0, chunk[len(head) :])
        self.size += len(chunk)
        self._tell()

    def end(self, *, complete: bool) -> None:
        """Say that no more will come."""
        self.complete, self.broken = complete, not complete
        self._tell()

    def reader(self, start: int = 0) -> SpoolReader:
        """Return what reads from ``start``; what it has not read yet stays there from now on."""
        reader = SpoolReader(self, start)
        self._readers.add(reader)
        return reader

    async def take(self, reader: SpoolReader, most: int) -> bytes:
        """Return what a reader reads next; nothing at the end.

        Raises:
            Broken: what comes next never came.
        """
        while reader.position >= self.size and not self.complete:
            if self.broken:
                raise BodyIncomplete
            await self._came.wait()
        start = reader.position % self._capacity
        self._file.seek(start)
        return self._file.read(max(0, min(most, _CHUNK, self.size - reader.position, self._capacity - start)))

    def leave(self, reader: SpoolReader) -> None:
        """Let a reader's bytes go."""
        self._readers.discard(reader)
        self._room.set()

    def moved(self) -> None:
        """Say that a reader went on."""
        self._room.set()

    def _write(self, start: int, data: bytes) -> None:
        if data:
            self._file.seek(start)
            self._file.write(data)

    def _tell(self) -> None:
        came, self._came = self._came, asyncio.Event()
        came.set()


class SpoolReader:
    """Reads a body from a position on."""

    def __init__(self, spool: Spool, position: int) -> None:
        self._spool = spool
        self.position = position

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spool.leave(self)

    async def read(self, most: int) -> bytes:
        """Return the next bytes, as many as there are; nothing at the end.

        Raises:
            Broken: what comes next never came.
        """
        chunk = await self._spool.take(self, most)
        self.position += len(chunk)
        self._spool.moved()
        return chunk
