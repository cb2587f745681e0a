"""What the edge knows of distributions.

What the state says of one is trusted for a second; a change made through this gateway is seen at once, one made through
another gateway on the same state within that second, purges included: they are numbered.
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
    """What the state said of a distribution, and when; ``settings`` are ``None`` of one that is not there."""

    settings: Data | None
    generation: int
    read: float


class DistributionSettings:
    """Looks distributions up.

    Args:
        store: the state.
        drop: throws away what is kept of a distribution and purged; it is told the tags of the distribution itself.
    """

    def __init__(self, store: Store, drop: Callable[[str, Purge, Iterable[str]], None]) -> None:
        self._store = store
        self._drop = drop
        self._known: dict[str, _Known] = {}
        self._changes: Counter[str] = Counter()

    def changed(self, id: str) -> None:
        """Say that a distribution is no longer what is known of it."""
        self._changes[id] += 1
        if id in self._known:
            self._known[id].read = -_TRUSTED

    async def settings(self, id: str) -> Data | None:
        """Return what the state says of a distribution; ``None`` if there is none."""
        known = self._known.get(id)
        if known is not None and time.monotonic() - known.read < _TRUSTED:
            return known.settings
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        while True:
            changes, read = self._changes[id], time.monotonic()
            settings, generation, purges = await self._store.run(partial(read_for_edge, id))
            if changes == self._changes[id]:  # else it changed meanwhile: another has thrown away what was of before
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
    """Say whether nothing that was kept is to be trusted: the origin is another, or purges were missed."""
    origins = [known.settings["origin"] if known.settings else None for known in (before, now)]
    return origins[0] != origins[1] or before.generation < now.generation - recorded
