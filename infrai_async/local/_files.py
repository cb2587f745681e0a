"""Files that are there whole or not at all, for their owner alone; and the removal of whole trees."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file in one step: whoever reads it finds what was there before, or all of the new content.

    Two at a time on one path are not provided for: whoever writes holds the lock of the directory, or is alone there.

    Args:
        path: the file; it is replaced if it is there.
        content: what it holds from then on.
        mode: its permissions, whatever the umask; by default only its owner may read it.
        durable: whether it outlives a loss of power from the moment that this returns. Without, it may then be empty:
            for what every start writes anew.

    Raises:
        OSError: it cannot be written; what was there before still is, and nothing else.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # of a process that was killed while it wrote
    descriptor = create(part)
    try:
        with open(descriptor, "w" if isinstance(content, str) else "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            if durable:
                os.fsync(descriptor)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_directory(path.parent)


def create(path: Path) -> int:
    """Return the descriptor of a new file that only its owner may read.

    Raises:
        FileExistsError: there is one already.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_number(path: Path) -> int | None:
    """Return the number in the first line of a file; ``None`` where there is no file, or no number in it."""
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def remove_tree(directory: Path, *, quietly: bool = False) -> None:
    """Delete a directory and all in it; twice does no harm.

    Args:
        directory: what is to go.
        quietly: whether what cannot be deleted may stay.

    Raises:
        OSError: something of it cannot be deleted, and may not stay.
    """
    shutil.rmtree(directory, ignore_errors=True)
    if not quietly and directory.exists():
        shutil.rmtree(directory)  # what another process was about to delete or write is settled by now
