"""The bytes of objects: files of random names, which only the state can tell whose they are.

A blob is written under a name that says so, made durable, and only then named by the state; one that the state gives up
is marked there in the same transaction and deleted after it. So at any moment of a crash the state names whole blobs
alone, and what it does not name is nobody's: the next start removes it.
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
from infrai_async.local.state.store import Store
from infrai_async.local.state.tables import DELETED_BLOBS, OBJECTS

_OURS: Final = re.compile(r"[0-9a-f]{32}(\.part)?")
_AT_ONCE: Final = 500
"""Blobs deleted between two looks at the state; a statement has room for so many names in any database."""
_logger = logging.getLogger(__name__)


class Upload:
    """A blob that is being written; its methods block. Nobody sees it before ``keep``, and none is left without.

    A cancelled request leaves its thread writing, so what is discarded meanwhile waits for that, and takes no more.
    """

    def __init__(self, directory: Path) -> None:
        self.name = secrets.token_hex(16)
        self.size = 0
        self.md5 = hashlib.md5(usedforsecurity=False)
        self._path = directory / self.name
        self._part = directory / f"{self.name}.part"
        self._file: BinaryIO | None = None
        self._discarded = False
        self._one_at_a_time = threading.Lock()

    def write(self, data: bytes) -> None:
        """Add bytes to the end."""
        with self._one_at_a_time:
            if not self._discarded:
                self._add(data)

    def _add(self, data: bytes) -> None:
        if self._file is None:
            self._file = open(create(self._part), "wb", buffering=0)  # noqa: SIM115 - held
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]
        self.md5.update(data)
        self.size += len(data)

    def keep(self) -> None:
        """Make it a blob that outlives whatever happens."""
        self.write(b"")
        if self._file is not None:
            os.fsync(self._file.fileno())
        self.close()
        self._part.rename(self._path)
        sync_directory(self._path.parent)

    def close(self) -> None:
        """End the writing."""
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Delete what there is of it; twice does no harm."""
        with self._one_at_a_time:
            self._discarded = True
            self.close()
            for path in (self._part, self._path):
                path.unlink(missing_ok=True)


class Blobs:
    """A directory of blobs, and what the state says about them."""

    def __init__(self, directory: Path, store: Store) -> None:
        self._directory = directory
        self._store = store

    async def open(self) -> None:
        """Make the directory, and remove from it what no gateway came to name; none may be writing there.

        Raises:
            OSError: it cannot be made or read.
        """
        there = await asyncio.to_thread(self._list)
        if not there:
            return
        left = there - await self._store.run(_named)
        if left:
            await asyncio.to_thread(self._delete, left)
            halves = sum(name.endswith(".part") for name in left)
            _logger.warning("removed %d unfinished uploads and %d blobs of no object", halves, len(left) - halves)

    def begin(self) -> Upload:
        """Return a new blob to be written."""
        return Upload(self._directory)

    async def read(self, name: str) -> BinaryIO:
        """Open a blob; what is open can be read to its end, also when the blob is deleted meanwhile.

        Raises:
            FileNotFoundError: it is deleted already.
        """
        return await asyncio.to_thread((self._directory / name).open, "rb", 0)

    async def clear(self) -> None:
        """Delete the blobs that the state has given up."""
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
    """Give a blob up."""
    connection.execute(DELETED_BLOBS.insert().values(blob=blob))


def _deleted(connection: Connection) -> list[str]:
    return list(connection.scalars(sa.select(DELETED_BLOBS.c.blob).limit(_AT_ONCE)))


def _forget(names: list[str], connection: Connection) -> None:
    connection.execute(DELETED_BLOBS.delete().where(DELETED_BLOBS.c.blob.in_(names)))


def _named(connection: Connection) -> frozenset[str]:
    return frozenset(connection.scalars(sa.union(sa.select(OBJECTS.c.blob), sa.select(DELETED_BLOBS.c.blob))))
