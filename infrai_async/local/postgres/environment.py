"""The environment of Postgres's processes, which may run under another account than the gateway."""

from __future__ import annotations

import os
from typing import Final

_NEEDED: Final = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "DYLD_FALLBACK_LIBRARY_PATH",
    "LOCPATH",
    "LOCALE_ARCHIVE",
    "ICU_DATA",
    "TZ",
    "TZDIR",
)


def environment() -> dict[str, str]:
    """Return what Postgres needs of this process's environment: where programs, libraries, locales and time zones are.

    Everything else stays here. Secrets are nobody else's business, and variables such as PGDATA name another server.
    """
    return {name: os.environ[name] for name in _NEEDED if name in os.environ} | {"LC_ALL": "C"}
