"""Where clusters lie for root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_HOMES = Path("/var/lib/infrai-async")


def homes() -> Iterator[tuple[Path, str]]:
    """The cluster directories that are there, each with the data directory that it belongs to."""
    for path in _HOMES.glob("cluster-*/owner"):
        try:
            yield path.parent, path.read_text()
        except FileNotFoundError:  # another process cleared it up a moment ago
            continue


def owners_of_homes() -> list[str]:
    return [owner for _, owner in homes()]
