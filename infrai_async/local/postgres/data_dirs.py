"""Locate, create and remove the directory of a cluster, and remove temporary ones that a killed gateway left behind.

The cluster is inside the data directory, or for root in a place that the server's unprivileged account can reach.

A temporary directory contains a marker file that its gateway keeps locked (``_locks``). The marker distinguishes it
from permanent directories, which may seem abandoned while they are moved, hidden or on an unmounted disk; the lock
shows whether its gateway is still alive. A permanent cluster outside of its data directory is tied to it by a hard
link.
"""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from infrai_async.local._files import remove_tree, write_whole
from infrai_async.local._locks import Lock
from infrai_async.local.postgres.binaries import PostgresUnavailable
from infrai_async.local.postgres.run_as import RunAs, shared_place
from infrai_async.local.postgres.stale_processes import stop_servers

PREFIX = "infrai-gateway-"
"""The prefix of the names of temporary data directories."""
_LONG_UNUSED = 30 * 24 * 3600  # seconds
IN_USE = "in-use"
"""The name of the file that the gateway of a cluster outside of its data directory keeps locked."""


def cluster_dir_of(directory: Path) -> Path:
    """Return the cluster directory that belongs to `<data directory>/postgres`.

    Raises:
        PostgresUnavailable: if it was placed elsewhere and is missing. A new, empty one must not replace it silently.
    """
    place = directory / "place"
    cluster_dir = Path(place.read_text()) if place.exists() else directory
    if not cluster_dir.is_dir():
        raise PostgresUnavailable(
            f"the databases of this data directory are gone from {cluster_dir}; to start anew: rm {place}"
        )
    if cluster_dir != directory:
        _name_owner(cluster_dir, directory)
        _tie(cluster_dir, place)
    return cluster_dir


def make_cluster_dir(directory: Path, account: RunAs) -> Path:
    """Create a cluster directory that the account can reach, unless it exists, and record its path in `directory`."""
    if account.uid is None or (directory / "place").exists():
        return cluster_dir_of(directory)
    cluster_dir = shared_place() / f"cluster-{secrets.token_hex(8)}"
    cluster_dir.mkdir(mode=0o700)
    _name_owner(cluster_dir, directory)
    # The account may traverse the directory to reach the cluster, but not read the superuser's password in it.
    cluster_dir.chmod(0o711)
    write_whole(directory / "place", str(cluster_dir))
    _tie(cluster_dir, directory / "place")
    return cluster_dir


def _name_owner(cluster_dir: Path, directory: Path) -> None:
    """Record the data directory in the cluster directory, for people who find it; the former may have moved since."""
    owner, now = cluster_dir / "owner", str(directory.absolute())
    if not owner.exists() or owner.read_text() != now:
        write_whole(owner, now)


def _tie(cluster_dir: Path, place: Path) -> None:
    """Give the file `place` of the data directory a second name in the cluster directory.

    It then shows by its number of links whether the data directory still exists, even after it was moved. There is none
    if the two are on different file systems.
    """
    tie = cluster_dir / "place"
    if not tie.exists() or tie.stat().st_nlink == 1:
        tie.unlink(missing_ok=True)
        with suppress(OSError):
            os.link(place, tie)


def _is_abandoned(cluster_dir: Path) -> bool:
    """Return whether the data directory of a cluster was deleted.

    It may still have been moved to another file system, so outside the directory for temporary files the cluster must
    also have been left alone for long.
    """
    try:
        place = Path((cluster_dir / "owner").read_text()) / "place"
        if (cluster_dir / "place").stat().st_nlink > 1:
            return False
        # A data directory that was restored from a copy has other files by the same names.
        restored = place.exists() and place.read_text() == str(cluster_dir)
        unused = time.time() - (cluster_dir / "log").stat().st_mtime
    except OSError:
        return False
    return not restored and (place.is_relative_to(tempfile.gettempdir()) or unused > _LONG_UNUSED)


def remove_cluster_dir(directory: Path, cluster_dir: Path) -> None:
    """Delete a cluster; idempotent.

    The reference to it is removed first, so that a crash cannot leave a reference to a half-deleted cluster.
    """
    (directory / "place").unlink(missing_ok=True)
    remove_tree(cluster_dir)


def sweep() -> None:
    """Remove what no gateway will use again, stopping servers that still run.

    These are the temporary data directories and clusters of gateways that were killed, and root's clusters whose data
    directory was deleted.
    """
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        # Other users may create directories with this prefix, whose contents must not be trusted.
        if _is_ours(directory) and (lock := Lock.of_left_behind(directory)):
            _remove_directory(directory)
            lock.release()
    for cluster_dir in shared_place().glob("cluster-*") if os.geteuid() == 0 else ():
        lock = Lock.of_left_behind(cluster_dir)
        if lock is None and _is_abandoned(cluster_dir):
            with suppress(OSError):  # a gateway still runs on it
                lock = Lock(cluster_dir / IN_USE)
        if lock is not None:
            _remove_left(cluster_dir)
            lock.release()


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _remove_directory(directory: Path) -> None:
    # A cluster outside the data directory has its own marker, by which the sweep finds it.
    _remove_left(directory / "postgres")
    remove_tree(directory, quietly=True)


def _remove_left(cluster_dir: Path) -> None:
    stop_servers(cluster_dir / "data", keep=False)
    remove_tree(cluster_dir, quietly=True)
