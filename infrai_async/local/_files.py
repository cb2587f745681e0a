"""Write files atomically and readable only by their owner, remove directory trees, and ask what files can do."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_FICLONE: Final = 0x40049409  # the ioctl of Linux that makes a file share the blocks of another


def write_whole(path: Path, content: str | bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file atomically: readers see either the previous content or all of the new content.

    Concurrent writers of one path are not supported; the caller must hold the directory's lock or otherwise be alone.

    Args:
        path: the file, which is replaced if it exists.
        content: the new content.
        mode: the permissions, regardless of the umask. Default: only the owner may read the file.
        durable: whether the file must survive a power failure from the moment this function returns. Otherwise it may
            be empty afterwards, which is acceptable for files that every start rewrites.

    Raises:
        OSError: if the file cannot be written; the previous content is then unchanged.
    """
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # left by a process that was killed while writing
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
    """Create a file that only its owner may read, and return its descriptor.

    Raises:
        FileExistsError: if the file exists.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)


def sync_directory(directory: Path) -> None:
    """Make the entries of a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_number(path: Path) -> int | None:
    """Return the number in the first line of a file, or None if there is no file or no number."""
    try:
        return int(path.read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def remove_tree(directory: Path, *, quietly: bool = False) -> None:
    """Delete a directory and its contents; idempotent.

    Args:
        directory: the directory to delete.
        quietly: whether to ignore errors, leaving behind what cannot be deleted.

    Raises:
        OSError: if something cannot be deleted and `quietly` is false.
    """
    shutil.rmtree(directory, ignore_errors=True)
    if not quietly and directory.exists():
        # The second attempt gets past files that another process deleted or created during the first one.
        shutil.rmtree(directory)


def can_clone(directory: Path) -> bool:
    """Return whether files in a directory can share their blocks (reflinks), as on Btrfs and XFS."""
    try:
        with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as copy:
            source.write(bytes(4096))
            source.flush()
            fcntl.ioctl(copy.fileno(), _FICLONE, source.fileno())
    except OSError:
        return False
    return True
