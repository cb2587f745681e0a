"""Find what a killed gateway or server left of a cluster: processes that outlived it, and orphaned directories.

After a `kill -9` the pid in `postmaster.pid` may have been reused by an unrelated process. On Linux a process belongs
to a cluster if its executable is `postgres` and its working directory is the data directory; elsewhere the command line
is compared.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from infrai_async.local._files import read_number
from infrai_async.local.postgres.binaries import environment

_PATIENCE = 5.0
_LONGEST_SHUTDOWN = 50.0
_POLL = 0.01
_logger = logging.getLogger(__name__)
_FIRST_OF_OURS = 16384  # Postgres reserves smaller OIDs for its own objects


def stop_servers(data: Path, *, keep: bool = True) -> None:
    """End every server process of the cluster in `data`, so that a new server can start; block until they are gone.

    A postmaster gets the signal for a fast shutdown. Backends that outlived a killed postmaster still hold its shared
    memory, which makes the next start fail. They, and anything that ignores the signal for long, are killed; the next
    start then recovers from the WAL.

    Args:
        data: The directory of the cluster.
        keep: Whether the cluster is still needed; otherwise nothing is waited for.
    """
    named = read_number(data / "postmaster.pid")
    if named is None:
        return
    if keep and _is_server(named, data):
        os.kill(named, signal.SIGINT)
        _wait_for_shutdown(data, named)
    for pid in _servers(data, named):
        os.kill(pid, signal.SIGKILL)
    _are_gone(data, named, _PATIENCE)
    _forget(data, named)


def _wait_for_shutdown(data: Path, named: int) -> None:
    for said in ("it is writing its data to disk, which is waited for", "it is still not done, and waited for"):
        if _are_gone(data, named, _PATIENCE):
            return
        _logger.warning("an earlier gateway was killed and its Postgres is being stopped: %s", said)
    if not _are_gone(data, named, _LONGEST_SHUTDOWN):
        _logger.warning("the Postgres of an earlier gateway does not stop, so it is killed; nothing committed is lost")


def directories(data: Path) -> dict[int, Path]:
    """Return the directories of the databases created in the cluster in `data`, by OID.

    A server that dies during CREATE DATABASE leaves the new directory behind, and its recovery does not remove it.
    """
    numbered = {int(path.name): path for path in (data / "base").iterdir() if path.name.isdigit()}
    return {oid: path for oid, path in numbered.items() if oid >= _FIRST_OF_OURS}


def _forget(data: Path, named: int) -> None:
    # Postgres refuses to start if the pid in the file is alive, even if it now belongs to an unrelated process.
    if _alive(named) and not _servers(data, named):
        (data / "postmaster.pid").unlink(missing_ok=True)


def _are_gone(data: Path, named: int, seconds: float) -> bool:
    """Wait until no process of the cluster is left, and return whether that was in time."""
    deadline = time.monotonic() + seconds
    while left := _servers(data, named):
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL)
    return not left


def _servers(data: Path, named: int) -> list[int]:
    if sys.platform != "linux":
        return [named] if _is_server(named, data) else []
    return [pid for entry in Path("/proc").glob("[0-9]*") if _is_server(pid := int(entry.name), data)]


def _is_server(pid: int, data: Path) -> bool:
    if sys.platform != "linux":
        command = ["ps", "-o", "command=", "-p", str(pid)]
        shown = subprocess.run(command, capture_output=True, text=True, env=environment())
        return f"postgres -D {data}" in shown.stdout
    try:
        # An executable that was replaced on disk while running appears as "postgres (deleted)".
        runs_postgres = Path(f"/proc/{pid}/exe").readlink().name.split(" ")[0] == "postgres"
        return runs_postgres and Path(f"/proc/{pid}/cwd").samefile(data)
    except OSError:
        return False


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
