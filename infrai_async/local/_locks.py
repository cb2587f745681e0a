"""File locks that ensure one process at a time; the kernel releases them when their holder dies, even by `kill -9`."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

# A child forked by a gateway that was then killed inherits its locks and holds them until it calls exec. Taking a lock
# is therefore retried for a short time.
_TRIES, _PAUSE = 10, 0.02


class DirectoryInUse(Exception):
    """Another gateway runs on the same data directory."""


class Lock:
    """An exclusive lock on a file, released when the process ends at the latest.

    Args:
        path: the file to lock.
        make: whether to create the file if it does not exist.
        wait: whether to wait until the lock is free.

    Raises:
        BlockingIOError: if another process holds the lock and `wait` is false.
    """

    def __init__(self, path: Path, *, make: bool = True, wait: bool = False) -> None:
        flags = os.O_RDWR | os.O_CREAT if make else os.O_RDWR
        self._file = open(os.open(path, flags, 0o600), "rb+", buffering=0)  # noqa: SIM115 - it is held
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    @classmethod
    def on(cls, directory: Path) -> Lock:
        """Lock a part of a data directory (`<data directory>/state` or `/postgres`) for this gateway.

        Raises:
            DirectoryInUse: if another gateway uses it.
        """
        for _ in range(_TRIES):
            try:
                return cls(directory / "lock")
            except BlockingIOError:
                time.sleep(_PAUSE)
        raise DirectoryInUse(
            f"another gateway runs on {directory.parent}: stop it, or give this one another --data-dir"
        )

    @classmethod
    def as_temporary(cls, directory: Path) -> Lock:
        """Mark a directory as temporary, and as in use while the lock is held.

        The marker is locked before it gets its name, so a new directory never looks abandoned to another gateway.
        """
        part = directory / f"{_TEMPORARY}.part"
        lock = cls(part)
        part.replace(directory / _TEMPORARY)
        return lock

    @classmethod
    def of_left_behind(cls, directory: Path) -> Lock | None:
        """Lock a temporary directory whose gateway is gone; return `None` for any other directory."""
        try:
            return cls(directory / _TEMPORARY, make=False)
        except OSError:
            return None

    def release(self) -> None:
        """Release the lock; idempotent."""
        self._file.close()


_TEMPORARY = "temporary"
