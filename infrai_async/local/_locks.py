"""One process at a time: files that are locked as long as their holder lives, also after a `kill -9`."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

# A process that a gateway was about to start when it was killed holds its locks until it has become its own program.
_TRIES, _PAUSE = 10, 0.02


class DirectoryInUse(Exception):
    """Another gateway runs on the same data directory."""


class Lock:
    """A locked file; ends with the process at the latest.

    Args:
        path: the file.
        make: whether to make it if it is not there.
        wait: whether to wait until nobody else holds it.

    Raises:
        BlockingIOError: somebody else holds it.
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
        """Take a part of a data directory (`<data directory>/state` or `/postgres`) for this gateway.

        Raises:
            DirectoryInUse: another one has it.
        """
        for _ in range(_TRIES):
            try:
                return cls(directory / "lock")
            except BlockingIOError:
                time.sleep(_PAUSE)
        raise DirectoryInUse(
            f"another gateway runs on {directory.parent}: stop it, or give this one --data-dir another"
        )

    @classmethod
    def as_temporary(cls, directory: Path) -> Lock:
        """Mark a directory as temporary, and as in use for as long as the lock is held.

        The mark appears locked: there is no moment at which a directory looks left behind that is not.
        """
        part = directory / f"{_TEMPORARY}.part"
        lock = cls(part)
        part.replace(directory / _TEMPORARY)
        return lock

    @classmethod
    def of_left_behind(cls, directory: Path) -> Lock | None:
        """Take a temporary directory whose gateway is gone; `None` for any other directory."""
        try:
            return cls(directory / _TEMPORARY, make=False)
        except OSError:
            return None

    def release(self) -> None:
        """Let another have it; twice does no harm."""
        self._file.close()


_TEMPORARY = "temporary"
