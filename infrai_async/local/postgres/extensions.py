"""Let owners of databases create the extensions that hosted services let them create, from Postgres 18 on.

An extension can be created by an owner who is no superuser if its control file says that it is trusted. The files of
the installation are not ours to change, so the server looks for control files in a directory of ours first; everything
else of an extension stays where it is. Extensions that owners often ask for and that the installation lacks have a
control file too, whose script says so: Postgres's own hint would be to install something on the system.

What a trusted extension creates is created as the superuser. Left out are therefore those that reach other servers,
files or pages (dblink, postgres_fdw, file_fdw, pageinspect), and earthdistance, whose script runs what it finds in the
owner's schemas.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from infrai_async.local._files import write_whole

TRUSTED: Final = (
    "autoinc",
    "bloom",
    "dict_xsyn",
    "insert_username",
    "moddatetime",
    "pg_stat_statements",
    "pgrowlocks",
    "vector",
)
INSTEAD: Final = {
    "pgcrypto": "gen_random_uuid(), md5() and sha224() to sha512() are built in",
    "postgis": "the types point, box and polygon are built in",
    "uuid-ossp": "gen_random_uuid() and uuidv7() are built in",
}
"""Extensions that may be missing, and what there is instead."""
SINCE: Final = 18
"""The first version with `extension_control_path`."""


def search_path(directory: Path) -> str | None:
    """Return the value of `extension_control_path`, or None if it cannot name this directory."""
    return None if ":" in str(directory) else f"{directory}:$system"


def provide(directory: Path, share: Path) -> None:
    """Write the control files.

    Args:
        directory: the directory that ``search_path`` names.
        share: the directory with the shared files of the installation.
    """
    ours, theirs = directory / "extension", share / "extension"
    for path in (directory, ours):
        path.mkdir(exist_ok=True)
        path.chmod(0o755)
    for name in TRUSTED:
        if (theirs / f"{name}.control").exists():
            text = (theirs / f"{name}.control").read_text(encoding="utf-8", errors="replace")
            _write(ours / f"{name}.control", f"{text.rstrip()}\ntrusted = true\ndirectory = {_quoted(str(theirs))}\n")
    for name, instead in INSTEAD.items():
        if not (theirs / f"{name}.control").exists():
            _write(ours / f"{name}.control", _LACKING)
            _write(ours / f"{name}--none.sql", _REFUSAL.format(name, instead))


_LACKING: Final = """\
comment = 'not part of this build of Postgres'
default_version = 'none'
trusted = true
"""
_REFUSAL: Final = """\
do $$ begin
    raise exception 'extension "{0}" is not part of this build of Postgres'
    using errcode = 'feature_not_supported',
          hint = '{1}; to have {0}, start the gateway with --postgres-bin and a Postgres that has it';
end $$;
"""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _write(path: Path, text: str) -> None:
    write_whole(path, text, mode=0o644, durable=False)
