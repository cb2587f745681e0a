"""Where a cluster's directory is: inside the data directory, or for root where the account dropped to can reach it.

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


def cluster_dir_of(directory: Path) -> Path:
    """Return the cluster's directory that belongs to `<data directory>/postgres`.

    Raises:
        PostgresUnavailable: if it is elsewhere and not there any more: an empty one would pass for it.
    """
    place = directory / "place"
    cluster_dir = Path(place.read_text()) if place.exists() else directory
    if not cluster_dir.is_dir():
        raise PostgresUnavailable(
            f"the databases of this data directory are gone from {cluster_dir}; to start anew: rm {place}"
        )
    if cluster_dir != directory:
        _name_owner(cluster_dir, directory)
    return cluster_dir


def make_cluster_dir(directory: Path, account: RunAs) -> Path:
    """Make a cluster's directory that the account can reach, unless there is one; `directory` names it from then on."""
    if account.uid is None or (directory / "place").exists():
        return cluster_dir_of(directory)
    cluster_dir = shared_place() / f"cluster-{secrets.token_hex(8)}"
    cluster_dir.mkdir(mode=0o700)
    _name_owner(cluster_dir, directory)
    # The account passes through to its files; the password beside them is not its to read.
    cluster_dir.chmod(0o711)
    write_whole(directory / "place", str(cluster_dir))
    return cluster_dir


def _name_owner(cluster_dir: Path, directory: Path) -> None:
    """Say whose cluster it is, for whoever finds it: the data directory may have moved since the last time."""
    owner, now = cluster_dir / "owner", str(directory.absolute())
    if not owner.exists() or owner.read_text() != now:
        write_whole(owner, now)


def remove_cluster_dir(directory: Path, cluster_dir: Path) -> None:
    """Delete a cluster for good, the name of it first, so that nothing names what is half gone; twice does no harm."""
    (directory / "place").unlink(missing_ok=True)
    remove_tree(cluster_dir)


def sweep() -> None:
    """Remove temporary directories, and clusters of such, whose gateway was killed; its server may run still."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Others may make directories of that name, and what those say is not to be followed.
        if _is_ours(directory) and (lock := Lock.of_left_behind(directory)):
            _remove_directory(directory)
            lock.release()
    for cluster_dir in shared_place().glob("cluster-*") if os.geteuid() == 0 else ():
        if lock := Lock.of_left_behind(cluster_dir):
            _remove_left(cluster_dir)
            lock.release()


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _remove_directory(directory: Path) -> None:
    # A cluster elsewhere carries a mark of its own and is found by it.
    _remove_left(directory / "postgres")
    remove_tree(directory, quietly=True)


def _remove_left(cluster_dir: Path) -> None:
    stop_servers(cluster_dir / "data")
    remove_tree(cluster_dir, quietly=True)
