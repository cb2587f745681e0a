"""As whom a server of ours runs, and from where.

Postgres refuses root, and a user dropped to reaches neither a virtual environment nor a data directory below a home of
mode 0700. So for root there is a ladder: `nobody`, with the programs copied and the cluster kept where it can reach
them; else a user namespace, which needs no copy. So does a user number that has no name, as containers are given:
initdb refuses it. Anybody else runs the server in place. A cluster that exists is run
by whoever owns it, so that `sudo` on a user's directory, or the other rung than last time, still opens it.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from infrai_async.local._files import remove_tree
from infrai_async.local._locks import Lock
from infrai_async.local.postgres.binaries import Binaries, PostgresUnavailable

_NOT_RUN = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man")


@frozen
class RunAs:
    """How to start a command as somebody: as another user, or behind a prefix; by default as the caller."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def command(self, *command: str) -> list[str]:
        """Return the command as it is to be started."""
        return [*self.prefix, *command]

    def options(self) -> dict[str, Any]:
        """Return what `subprocess` needs to start it so."""
        # Settings such as PGPORT or PGDATA in the caller's environment are about another server.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        options: dict[str, Any] = {"cwd": "/", "env": environment | {"LC_ALL": "C"}, "stdin": subprocess.DEVNULL}
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def give(self, path: Path) -> None:
        """Make the account the owner of one file or directory."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_run(self, binaries: Binaries) -> bool:
        """Whether the account can start these programs: asked by starting one."""
        command = self.command(binaries.program("postgres"), "--version")
        try:
            return not subprocess.run(command, capture_output=True, timeout=10, **self.options()).returncode
        except (OSError, subprocess.TimeoutExpired):
            return False


def for_cluster(owner: int) -> RunAs:
    """Return the account that runs a cluster whose files belong to the user `owner`."""
    if owner == os.geteuid():
        return _as_caller()
    try:
        return RunAs(owner, pwd.getpwuid(owner).pw_gid)
    except KeyError:
        raise PostgresUnavailable(f"the cluster's owner {owner} is no user here: chown it to one") from None


def ladder() -> list[RunAs]:
    """Return the accounts to try for a new cluster, best first."""
    return [_as_caller()] if os.geteuid() else [*_nobody(), _in_namespace()]


def _as_caller() -> RunAs:
    """Return the account that the caller's files need: for root, and a number without a name, that is a namespace."""
    try:
        return RunAs() if pwd.getpwuid(os.geteuid()).pw_uid else _in_namespace()
    except KeyError:
        return _in_namespace()


def _nobody() -> Iterator[RunAs]:
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        return
    yield RunAs(entry.pw_uid, entry.pw_gid)


def _in_namespace() -> RunAs:
    # initdb looks its user up by number, so the number has to be one that has a name.
    number = next(entry.pw_uid for entry in reversed(pwd.getpwall()) if entry.pw_uid)
    # As a text, so that it also runs from a zipped or frozen package, and where another user cannot read the file.
    program = resources.files("infrai_async.local.postgres").joinpath("userns.py").read_text(encoding="utf-8")
    # The executable of a frozen program is that program.
    python = "python3" if getattr(sys, "frozen", False) else sys.executable
    return RunAs(prefix=(python, "-I", "-S", "-c", program, str(number)))


def shared_place() -> Path:
    """Return a directory of root's that every user can reach.

    Raises:
        PostgresUnavailable: if there is none.
    """
    for parent in (Path("/var/lib"), Path(tempfile.gettempdir())):
        place = parent / "infrai-async"
        try:
            place.mkdir(exist_ok=True)
            if _is_roots(place):
                place.chmod(0o755)
                return place
        except OSError:
            continue
    raise PostgresUnavailable("neither /var/lib nor the temporary directory takes a copy of Postgres: run as non-root")


def _is_roots(place: Path) -> bool:
    # In a temporary directory somebody else may have been first, and what lies here is run.
    found = place.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def reachable(binaries: Binaries, account: RunAs) -> Binaries | None:
    """Return programs that the account can run: these, or for root's sake a copy of them; None if neither will do."""
    if account.can_run(binaries):
        return binaries
    if account.uid is None or os.geteuid():
        return None
    copied = _copied(binaries, shared_place())
    return copied if account.can_run(copied) else None


def _copied(binaries: Binaries, place: Path) -> Binaries:
    program = (binaries.directory / "postgres").stat()
    identity = hashlib.sha256(f"{binaries.directory}\0{program.st_size}\0{program.st_mtime_ns}".encode())
    target = place / f"postgres-{binaries.major}-{identity.hexdigest()[:16]}"
    install = binaries.directory.parent
    with Lock(place / "lock", wait=True):
        if not target.exists():
            _copy(install, target)
    return evolve(binaries, directory=target / install.parent.name / install.name / binaries.directory.name)


def _copy(install: Path, target: Path) -> None:
    """Copy an installation, keeping its depth: wheels link to `<package>.libs` beside the package by relative path."""
    part = target.with_name(f"{target.name}.part")
    remove_tree(part, quietly=True)
    package = install.parent
    inside = part / package.name / install.name
    (inside / "bin").mkdir(parents=True)
    for name in ("postgres", "initdb"):
        shutil.copy2(install / "bin" / name, inside / "bin" / name)
    for name in ("lib", "share"):
        shutil.copytree(install / name, inside / name, ignore=_NOT_RUN, ignore_dangling_symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, part / libraries.name)
    _open_up(part)
    part.rename(target)


def _open_up(part: Path) -> None:
    # A umask of 077 at installation or now would keep the account out again.
    for folder, _, files in os.walk(part):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755 | 0o444)
