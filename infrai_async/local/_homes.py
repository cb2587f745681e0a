"""Where a cluster's home is: inside the data directory, or for root where the account dropped to can reach it."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from pathlib import Path

from infrai_async.local._account import Account, shared_place
from infrai_async.local._finder import PostgresUnavailable
from infrai_async.local._orphans import stop_servers


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
    return home


def new_home(directory: Path, account: Account) -> Path:
    """Make a home that the account can reach, unless there is one; the directory names it from then on."""
    if account.uid is None or (directory / "place").exists():
        return home_of(directory)
    home = shared_place() / f"cluster-{secrets.token_hex(8)}"
    home.mkdir(mode=0o700)
    (home / "owner").write_text(str(directory.absolute()))
    # The account passes through to its files; the password beside them is not its to read.
    home.chmod(0o711)
    private(directory / "place", str(home))
    return home


def remove_home(directory: Path, home: Path) -> None:
    """Delete a home for good, the name of it first, so that nothing names what is half gone; twice does no harm."""
    (directory / "place").unlink(missing_ok=True)
    shutil.rmtree(home, ignore_errors=True)


def private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600, exist_ok=False)
    part.write_text(text)
    part.replace(path)


def sweep() -> None:
    """Remove the homes, made by root, of temporary data directories that are gone.

    Only temporary ones: another that is missing may lie on a disk that is not mounted now.
    """
    if os.geteuid():
        return
    temporary = Path(tempfile.gettempdir()).resolve()
    for home in shared_place().glob("cluster-*"):
        owner = _owner(home)
        if owner and owner.resolve().is_relative_to(temporary) and not owner.exists():
            stop_servers(home / "data")
            shutil.rmtree(home, ignore_errors=True)


def _owner(home: Path) -> Path | None:
    try:
        return Path((home / "owner").read_text())
    except FileNotFoundError:
        return None
