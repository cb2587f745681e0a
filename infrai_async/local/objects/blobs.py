"""The bytes of objects: files with random names, to which the state refers.

A blob is written to a ``.part`` file, made durable and renamed; only then does the state refer to it. When the state
stops referring to a blob, the same transaction marks it as deleted, and the file is removed afterwards. After a crash
at any point the state therefore refers to complete blobs only, and every other file is garbage that the next start
removes.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._files import create, sync_directory
from infrai_async.local.objects.checksums import Hasher
from infrai_async.local.state.store import Store
from infrai_async.local.state.tables import DELETED_BLOBS, OBJECTS

_OURS: Final = re.compile(r"[0-9a-f]{32}(\.part)?")
_AT_ONCE: Final = 500
"""Blobs deleted per transaction, well below the number of parameters that any database allows in a statement."""
_logger = logging.getLogger(__name__)


class Upload:
    """A blob that is being written; its methods block.

    The blob becomes visible with ``keep``; ``discard`` leaves nothing of it. Cancelling a request does not stop the
    thread that is writing, so ``discard`` waits for that thread, and later writes are ignored.
    """

    def __init__(self, directory: Path) -> None:
        self.name: str = secrets.token_hex(16)
        self.size: int = 0
        self.md5: hashlib._Hash = hashlib.md5(usedforsecurity=False)
        self.hashers: list[Hasher] = [self.md5]
        self._path = directory / self.name
        self._part = directory / f"{self.name}.part"
        self._file: BinaryIO | None = None
        self._discarded = False
        self._one_at_a_time = threading.Lock()

    def write(self, data: bytes) -> None:
        """Append bytes."""
        with self._one_at_a_time:
            if not self._discarded:
                self._add(data)

    def _add(self, data: bytes) -> None:
        if self._file is None:
            self._file = open(create(self._part), "wb", buffering=0)  # noqa: SIM115 - held
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        for hasher in self.hashers:
            hasher.update(data)
        self.size += len(data)

    def keep(self) -> None:
        """Make the blob durable under its final name."""
        self.write(b"")
        # Contents, then name, then directory entry: a blob that has its final name after a power failure is complete.
        if self._file is not None:
            os.fsync(self._file.fileno())
        self.close()
        self._part.rename(self._path)
        sync_directory(self._path.parent)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Delete whatever was written; idempotent."""
        with self._one_at_a_time:
            self._discarded = True
            self.close()
            for path in (self._part, self._path):
                path.unlink(missing_ok=True)


class Blobs:
    """A directory of blobs, kept in step with the state."""

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory = directory
        self._store = store

    async def open(self) -> None:
        """Create the directory, and remove the files that the state does not refer to.

        It must run before any upload begins, since the blob of an unfinished upload has no reference yet either.

        Raises:
            OSError: if the directory cannot be created or read.
        """
        there = await asyncio.to_thread(self._list)
        if not there:
            return
        left = there - await self._store.run(_named)
        if left:
            await asyncio.to_thread(self._delete, left)
            halves = sum(name.endswith(".part") for name in left)
            _logger.warning("removed %d unfinished uploads and %d unreferenced blobs", halves, len(left) - halves)

    def begin(self) -> Upload:
        """Return a new blob to write to."""
        return Upload(self._directory)

    async def read(self, name: str) -> BinaryIO:
        """Open a blob; an open blob can be read to its end even if it is deleted in the meantime.

        Raises:
            FileNotFoundError: if the blob has been deleted.
        """
        return await asyncio.to_thread((self._directory / name).open, "rb", 0)

    async def clear(self) -> None:
        """Delete the blobs that are marked as deleted."""
        # Files first, marks second: after a crash in between, the marks remain and deleting again is harmless.
        while names := await self._store.run(_deleted):
            await asyncio.to_thread(self._delete, names)
            await self._store.run(partial(_forget, names))

    def _list(self) -> frozenset[str]:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(self._directory.parent)
        return frozenset(name for name in os.listdir(self._directory) if _OURS.fullmatch(name))

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._directory / name).unlink(missing_ok=True)


def mark_deleted(connection: Connection, blob: str) -> None:
    """Mark a blob as deleted; its file is removed once the transaction has committed."""
    connection.execute(DELETED_BLOBS.insert().values(blob=blob))


def _deleted(connection: Connection) -> list[str]:
    return list(connection.scalars(sa.select(DELETED_BLOBS.c.blob).limit(_AT_ONCE)))


def _forget(names: list[str], connection: Connection) -> None:
    connection.execute(DELETED_BLOBS.delete().where(DELETED_BLOBS.c.blob.in_(names)))


def _named(connection: Connection) -> frozenset[str]:
    return frozenset(connection.scalars(sa.union(sa.select(OBJECTS.c.blob), sa.select(DELETED_BLOBS.c.blob))))
