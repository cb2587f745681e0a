"""Find what a killed gateway or server left of a cluster: processes that outlived it, and orphaned directories.

After a `kill -9` the pid in `postmaster.pid` may have been reused by an unrelated process. On Linux a process belongs
to a cluster if its executable is `postgres` and its working directory is the data directory; elsewhere the command line
is compared.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from infrai_async.local._files import read_number

_PATIENCE = 10.0
_POLL = 0.01
_FIRST_OF_OURS = 16384  # Postgres reserves smaller OIDs for its own objects


def stop_servers(data: Path) -> None:
    """End every server process of the cluster in `data`, so that a new server can start; block until they are gone.

    A postmaster gets the signal for a fast shutdown. Backends that outlived a killed postmaster still hold its shared
    memory, which makes the next start fail. They, and anything that ignores the signal, are killed; the next start
    then recovers from the WAL.
    """
    named = read_number(data / "postmaster.pid")
    if named is None:
        return
    if _is_server(named, data):
        os.kill(named, signal.SIGINT)
        _wait_until_gone(data, named)
    for pid in _servers(data, named):
        os.kill(pid, signal.SIGKILL)
    _wait_until_gone(data, named)
    _forget(data, named)


def is_served(data: Path) -> bool:
    """Return whether a process of a server works in the cluster in `data`."""
    named = read_number(data / "postmaster.pid")
    return named is not None and bool(_servers(data, named))


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


def _wait_until_gone(data: Path, named: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while _servers(data, named) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _servers(data: Path, named: int) -> list[int]:
    if sys.platform != "linux":
        return [named] if _is_server(named, data) else []
    return [pid for entry in Path("/proc").glob("[0-9]*") if _is_server(pid := int(entry.name), data)]


def _is_server(pid: int, data: Path) -> bool:
    if sys.platform != "linux":
        shown = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True)
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
