"""What a killed gateway or server leaves of a cluster: processes that outlived it, directories of no database.

After a `kill -9` the pid in `postmaster.pid` may by now be anybody's. On Linux a server of a cluster is a process whose
program is `postgres` and whose working directory is the cluster; elsewhere the command line has to do.
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
_FIRST_OF_OURS = 16384  # Postgres keeps smaller numbers for itself


def stop_servers(data: Path) -> None:
    """End every server process of the cluster in `data`, so that another can be started; blocks until they are gone.

    A postmaster is asked to shut down fast. What is left of a killed one (a busy backend keeps the shared memory, and
    the next start is refused for it) and what does not go is killed: recovery is what the next start is for.
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


def directories(data: Path) -> dict[int, Path]:
    """Return the directories of the databases that were made in the cluster in `data`, by their numbers.

    A server that dies while it makes a database leaves its files: its own recovery does not look for them.
    """
    numbered = {int(path.name): path for path in (data / "base").iterdir() if path.name.isdigit()}
    return {oid: path for oid, path in numbered.items() if oid >= _FIRST_OF_OURS}


def _forget(data: Path, named: int) -> None:
    # Postgres takes any live process of its own account for the server the file names, and refuses to start.
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
        # A program that was replaced on disk while it ran is shown as "postgres (deleted)".
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
