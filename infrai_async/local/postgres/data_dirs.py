"""Where a cluster's home is: inside the data directory, or for root where the account dropped to can reach it.

What is temporary says so itself, in a file that its gateway keeps locked (`_lock`). So what a killed gateway left is
told from what is in use, and both from a data directory that is moved, hidden or on a disk that is not mounted now.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from pathlib import Path

from infrai_async.local._files import remove_tree, write_whole
from infrai_async.local._locks import Lock
from infrai_async.local.postgres.binaries import PostgresUnavailable
from infrai_async.local.postgres.run_as import RunAs, shared_place
from infrai_async.local.postgres.stale_processes import stop_servers

PREFIX = "infrai-gateway-"
"""How the names of temporary data directories begin."""


def home_of(directory: Path) -> Path:
    """Return the home that belongs to `<data directory>/postgres`.

    Raises:
        PostgresUnavailable: if it is elsewhere and not there any more: an empty one would pass for it.
    """
    place = directory / "place"
    home = Path(place.read_text()) if place.exists() else directory
    if not home.is_dir():
        raise PostgresUnavailable(
            f"the databases of this data directory are gone from {home}; to start anew: rm {place}"
        )
    if home != directory:
        _name_owner(home, directory)
    return home


def new_home(directory: Path, account: RunAs) -> Path:
    """Make a home that the account can reach, unless there is one; the directory names it from then on."""
    if account.uid is None or (directory / "place").exists():
        return home_of(directory)
    home = shared_place() / f"cluster-{secrets.token_hex(8)}"
    home.mkdir(mode=0o700)
    _name_owner(home, directory)
    # The account passes through to its files; the password beside them is not its to read.
    home.chmod(0o711)
    write_whole(directory / "place", str(home))
    return home


def _name_owner(home: Path, directory: Path) -> None:
    """Say whose home it is, for whoever finds it: the data directory may have moved since the last time."""
    owner, now = home / "owner", str(directory.absolute())
    if not owner.exists() or owner.read_text() != now:
        write_whole(owner, now)


def remove_home(directory: Path, home: Path) -> None:
    """Delete a home for good, the name of it first, so that nothing names what is half gone; twice does no harm."""
    (directory / "place").unlink(missing_ok=True)
    remove_tree(home)


def sweep() -> None:
    """Remove temporary directories, and homes of such, whose gateway was killed; its server may run still."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Others may make directories of that name, and what those say is not to be followed.
        if _is_ours(directory) and (lock := Lock.of_left_behind(directory)):
            _remove_directory(directory)
            lock.release()
    for home in shared_place().glob("cluster-*") if os.geteuid() == 0 else ():
        if lock := Lock.of_left_behind(home):
            _remove_left(home)
            lock.release()


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _remove_directory(directory: Path) -> None:
    # A home elsewhere carries a mark of its own and is found by it.
    _remove_left(directory / "postgres")
    remove_tree(directory, quietly=True)


def _remove_left(home: Path) -> None:
    stop_servers(home / "data")
    remove_tree(home, quietly=True)
