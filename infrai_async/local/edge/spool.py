"""Buffer a body that arrives once and is read by several readers, even while it is still arriving.

Small bodies stay in memory. Larger ones go to an unlinked temporary file, which the operating system removes even if
the process is killed. A body that exceeds its capacity is kept in a ring buffer, so it is received no faster than its
slowest reader reads.
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
    """The bytes of a body received so far.

    Attributes:
        size: the number of bytes received.
        complete: whether the whole body has been received.
        broken: whether the transfer has ended before the body was complete.
    """

    def __init__(self, capacity: int, directory: Path) -> None:
        self.size: int = 0
        self.complete: bool = False
        self.broken: bool = False
        self._capacity = capacity
        self._file = SpooledTemporaryFile[bytes](max_size=IN_MEMORY, dir=str(directory))
        weakref.finalize(self, self._file.close)
        self._readers: set[SpoolReader] = set()
        self._came = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def whole(self) -> bool:
        """Whether the body is still buffered from its first byte."""
        return self.size <= self._capacity

    @property
    def joinable(self) -> bool:
        """Whether a new reader can read the body from its first byte and, as far as is known, to its last."""
        return self.whole and not self.broken

    @property
    def in_memory(self) -> bool:
        """Whether the body is in memory rather than in a file."""
        return self.size <= IN_MEMORY

    async def append(self, chunk: bytes) -> None:
        """Append bytes, once every reader has read the bytes that they overwrite."""
        # Without readers the limit is position 0: nothing is overwritten before the first reader has come.
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
        """Mark the transfer as ended."""
        self.complete, self.broken = complete, not complete
        self._tell()

    def reader(self, start: int = 0) -> SpoolReader:
        """Return a reader that begins at ``start``; bytes that it has not read yet are not overwritten."""
        reader = SpoolReader(self, start)
        self._readers.add(reader)
        return reader

    async def take(self, reader: SpoolReader, most: int) -> bytes:
        """Return the next bytes for a reader, or ``b""`` at the end.

        Raises:
            BodyIncomplete: if the transfer ended before these bytes arrived.
        """
        while reader.position >= self.size and not self.complete:
            if self.broken:
                raise BodyIncomplete
            await self._came.wait()
        start = reader.position % self._capacity
        self._file.seek(start)
        return self._file.read(max(0, min(most, _CHUNK, self.size - reader.position, self._capacity - start)))

    def leave(self, reader: SpoolReader) -> None:
        """Remove a reader, so that its unread bytes may be overwritten."""
        self._readers.discard(reader)
        self._room.set()

    def moved(self) -> None:
        """Signal that a reader has advanced."""
        self._room.set()

    def _write(self, start: int, data: bytes) -> None:
        if data:
            self._file.seek(start)
            self._file.write(data)

    def _tell(self) -> None:
        came, self._came = self._came, asyncio.Event()
        came.set()


class SpoolReader:
    """Read a body from a position onwards."""

    def __init__(self, spool: Spool, position: int) -> None:
        self._spool = spool
        self.position: int = position

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._spool.leave(self)

    async def read(self, most: int) -> bytes:
        """Return up to ``most`` of the next bytes, or ``b""`` at the end.

        Raises:
            BodyIncomplete: if the transfer ended before these bytes arrived.
        """
        chunk = await self._spool.take(self, most)
        self.position += len(chunk)
        self._spool.moved()
        return chunk
