"""Run a command under the uid of an ordinary user in a new user namespace: `python -c TEXT UID COMMAND...`.

Postgres refuses to run as root, and root in a rootless container cannot switch to another user. A user namespace maps
the caller to another uid: inside it the server does not look like root, while to the kernel it still runs as the
caller, so its files keep their owner. The text of the module is run as a program, so it imports only the standard
library.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000


def enter(number: int) -> None:
    """Move this process into a new user namespace in which its uid and gid are `number`."""
    user, group = os.geteuid(), os.getegid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "cannot create a user namespace")
    # The kernel accepts the gid map of an unprivileged process only once setgroups is denied.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{number} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{number} {group} 1")


if __name__ == "__main__":
    enter(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - to become the command is what this is for
