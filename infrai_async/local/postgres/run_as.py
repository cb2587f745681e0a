"""Choose the account that runs the gateway's own Postgres server, and make the server's programs reachable for it.

Postgres refuses to run as root, and an unprivileged user cannot reach a virtual environment or data directory below a
home of mode 0700. Root therefore tries two ways: run as `nobody`, with the programs copied and the cluster placed where
`nobody` can reach them; or else in a user namespace, which needs no copy. A uid without a name, which is common in
containers and which initdb refuses, uses a user namespace as well. Every other user runs the server in place.

An existing cluster is always run by the owner of its files, so it can still be opened under `sudo` or when the choice
would be different today.
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
from infrai_async.local.postgres.binaries import Binaries, PostgresUnavailable, environment

_NOT_RUN = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "doc", "man")


@frozen
class RunAs:
    """How to start a command under an account: as another user, or behind a prefix; by default as the caller."""

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    def command(self, *command: str) -> list[str]:
        """Return the command line, with the prefix if there is one."""
        return [*self.prefix, *command]

    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for `subprocess`."""
        options: dict[str, Any] = {"cwd": "/", "env": environment(), "stdin": subprocess.DEVNULL}
        if self.uid is not None:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def give(self, path: Path) -> None:
        """Make the account the owner of a file or directory."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_run(self, binaries: Binaries) -> bool:
        """Return whether the account can run these programs, by running one of them."""
        command = self.command(binaries.program("postgres"), "--version")
        try:
            return not subprocess.run(command, capture_output=True, timeout=10, **self.options()).returncode
        except (OSError, subprocess.TimeoutExpired):
            return False


def for_cluster(owner: int) -> RunAs:
    """Return the account that runs a cluster whose files belong to the uid `owner`."""
    if owner == os.geteuid():
        return _as_caller()
    try:
        return RunAs(owner, pwd.getpwuid(owner).pw_gid)
    except KeyError:
        raise PostgresUnavailable(
            f"the cluster belongs to uid {owner}, which is not a user of this machine: chown it to an existing user"
        ) from None


def ladder() -> list[RunAs]:
    """Return the accounts to try for a new cluster, best first."""
    return [_as_caller()] if os.geteuid() else [*_nobody(), _in_namespace()]


def _as_caller() -> RunAs:
    """Return the account for files of the caller: for root and for a uid without a name, a user namespace."""
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
    # initdb looks up the name of its user, so the uid must be one that has a name.
    number = next(entry.pw_uid for entry in reversed(pwd.getpwall()) if entry.pw_uid)
    # As a text, so that it also runs from a zipped or frozen package, and where another user cannot read the file.
    program = resources.files("infrai_async.local.postgres").joinpath("userns.py").read_text(encoding="utf-8")
    # The executable of a frozen program is that program.
    python = "python3" if getattr(sys, "frozen", False) else sys.executable
    return RunAs(prefix=(python, "-I", "-S", "-c", program, str(number)))


def shared_place() -> Path:
    """Return a directory that belongs to root and that every user can reach, creating it if necessary.

    Raises:
        PostgresUnavailable: if none can be created.
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
    raise PostgresUnavailable(
        "neither /var/lib nor the temporary directory can hold a copy of Postgres: run as an ordinary user"
    )


def _is_roots(place: Path) -> bool:
    # Another user may have created the name in the temporary directory first, and programs are executed from here.
    found = place.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == 0 and not found.st_mode & 0o022


def reachable(binaries: Binaries, account: RunAs) -> Binaries | None:
    """Return programs that the account can run: these or, if root may copy them, a copy; None if neither works."""
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
    """Copy an installation and keep its depth: wheels refer to `<package>.libs` beside the package by relative path."""
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
    # With a umask of 077, at installation or now, the account could not read the files.
    for folder, _, files in os.walk(part):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o755 | 0o444)
