"""The settings of distributions, cached by the edge.

Settings read from the state are used for one second. A change through this gateway takes effect at once, and a change
through another gateway over the same state within that second. The same holds for purges: they are numbered, so the
edge can tell which of them it has not carried out yet.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final

import attrs

from infrai_async.local.services.base import Data
from infrai_async.local.services.cdn import Purge, read_for_edge
from infrai_async.local.state.store import Store

_TRUSTED: Final = 1.0
_MOST_KNOWN: Final = 10_000


@attrs.define
class _Known:
    """The settings of a distribution (``None`` if it does not exist), its last purge, and when they were read."""

    settings: Data | None
    generation: int
    read: float


class DistributionSettings:
    """Look up distributions, and carry out purges that are new.

    Args:
        store: the state.
        drop: removes purged responses from the cache, given the distribution, the purge and the distribution's tags.
    """

    def __init__(self, store: Store, drop: Callable[[str, Purge, Iterable[str]], None]) -> None:
        self._store = store
        self._drop = drop
        self._known: dict[str, _Known] = {}
        self._changes: Counter[str] = Counter()

    def changed(self, id: str) -> None:
        """Invalidate the cached settings of a distribution."""
        self._changes[id] += 1
        if id in self._known:
            self._known[id].read = -_TRUSTED

    async def settings(self, id: str) -> Data | None:
        """Return the settings of a distribution, or None if it does not exist."""
        known = self._known.get(id)
        if known is not None and time.monotonic() - known.read < _TRUSTED:
            return known.settings
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        while True:
            changes, read = self._changes[id], time.monotonic()
            settings, generation, purges = await self._store.read(partial(read_for_edge, id))
            # If the distribution changed during the read, the settings may be outdated, and storing them would undo
            # the invalidation. So they are read again.
            if changes == self._changes[id]:
                self._learn(id, _Known(settings, generation, read), purges)
                return settings

    def _learn(self, id: str, now: _Known, purges: Sequence[tuple[int, Purge]]) -> None:
        before = self._known.pop(id, None)
        if now.settings is None:
            del self._changes[id]
        else:
            self._known[id] = now
        if before is None or now.settings is None or _is_another(before, now, len(purges)):
            self._drop(id, Purge(everything=True), ())
            return
        for generation, purge in purges:
            if generation > before.generation:
                self._drop(id, purge, now.settings["tags"])


def _is_another(before: _Known, now: _Known, recorded: int) -> bool:
    """Return whether everything cached must go: the origin changed, or purges are no longer recorded."""
    origins = [known.settings["origin"] if known.settings else None for known in (before, now)]
    return origins[0] != origins[1] or before.generation < now.generation - recorded
