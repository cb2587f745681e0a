"""Run a command as an ordinary user's number in a user namespace of its own: `python -c TEXT UID COMMAND...`.

Postgres refuses root. Where root may not become another user either (a rootless container), a namespace of one user
lets root be called something else: to the kernel the server stays who started it, so its files need no new owner.
The text of this module is run as a program, hence nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000


def enter(number: int) -> None:
    """Move this process into a new user namespace, where its user and group have the given number."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "no user namespace")
    # The kernel takes a group map of an unprivileged process only after it gave up setgroups.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{number} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{number} {group} 1")


if __name__ == "__main__":
    enter(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - to become the command is what this is for
