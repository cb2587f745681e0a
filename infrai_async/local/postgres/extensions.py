"""Extensions that the owners of databases may create, as at hosted services, though they are no superusers.

An extension is *trusted* if its control file says so. Postgres 18 looks for control files in further directories, so
copies that say it are put into one of the gateway's own. An older server offers what its own files trust.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infrai_async.local.postgres.binaries import Binaries

_ALLOWED: Final = (
    "vector",
    "earthdistance",
    "moddatetime",
    "autoinc",
    "insert_username",
    "refint",
    "bloom",
    "dict_xsyn",
    "pg_stat_statements",
    "pgrowlocks",
    "hypopg",
    "pg_uuidv7",
)
"""They reach no files, no other databases and no network, and show nothing of other tenants."""
_INSTEAD: Final[Mapping[str, str]] = {
    "pgcrypto": "gen_random_uuid() and sha256() are built in; for the rest start the gateway with another Postgres: "
    "--postgres-bin",
    "uuid-ossp": "gen_random_uuid() and uuidv7() are built in; for the rest start the gateway with another Postgres: "
    "--postgres-bin",
}
"""What people create out of habit, and what to do where the server was built without it."""
_LACKING: Final = "comment = 'not in this build of Postgres'\ndefault_version = '0'\ntrusted = true\n"


def allow_extensions(binaries: Binaries, cluster_dir: Path) -> Path | None:
    """Write the control files, and return the directory to search for them; ``None`` if it cannot be named."""
    there = _installed(binaries)
    place = cluster_dir / "extensions"
    if there is None or ":" in str(place):  # which separates the directories in the setting
        return None
    ours = place / "extension"
    for folder in (place, ours):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)  # the server may run as another user
    for name in _ALLOWED:
        control = there / f"{name}.control"
        if control.is_file():
            _write(ours / control.name, _trusted(control.read_text(), there))
    for name, instead in _INSTEAD.items():
        if not (there / f"{name}.control").is_file():
            _write(ours / f"{name}.control", _LACKING)
            _write(ours / f"{name}--0.sql", _refusal(name, instead))
    return place


def _installed(binaries: Binaries) -> Path | None:
    """Return the directory of the server's own control files."""
    share = binaries.directory.parent / "share"
    packaged = Path(f"/usr/share/postgresql/{binaries.major}/extension")  # Debian's
    places = (share / "extension", share / "postgresql" / "extension", packaged)
    return next((place for place in places if (place / "plpgsql.control").is_file()), None)


def _trusted(control: str, there: Path) -> str:
    lines = [line for line in control.splitlines() if not re.match(r"\s*(trusted|directory)\s*=", line)]
    return "\n".join([*lines, "trusted = true", f"directory = '{str(there).replace(chr(39), chr(39) * 2)}'", ""])


def _refusal(name: str, instead: str) -> str:
    message = f"this Postgres was built without {name}"
    options = f"errcode = 'feature_not_supported', hint = '{instead}'"
    return f"do $$ begin raise exception '{message}' using {options}; end $$;\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)
