"""The storage of the edge's cache: responses by key and variant, evicted in least-recently-used order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs

from infrai_async.local.edge.policy import Headers, OriginResponse
from infrai_async.local.edge.spool import Spool

Key: TypeAlias = tuple[str, str]
"""The id of a distribution, and the path and query as the client sent them."""
_MEMORY: Final = 2**27
_FILES: Final = 128
_DISK: Final = 2**30
_HEADERS: Final = 2**11
"""The estimated memory of an entry apart from its body."""
_VARIANTS: Final = 32


@attrs.frozen(eq=False)
class Entry:
    """A cached response with its body."""

    answer: OriginResponse
    body: Spool


class Cache:
    """A bounded store of entries, up to 32 variants for each key."""

    def __init__(self) -> None:
        self._entries: OrderedDict[Key, list[Entry]] = OrderedDict()
        self._memory = self._files = self._disk = 0

    def find(self, key: Key, request: Headers) -> Entry | None:
        """Return the newest entry whose variant matches the request, fresh or stale."""
        found = next((entry for entry in self._entries.get(key, ()) if entry.answer.fits(request)), None)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: Key, entry: Entry) -> None:
        """Store an entry, replacing the one of the same variant."""
        kept = self._entries.setdefault(key, [])
        old = [other for other in kept if other.answer.vary == entry.answer.vary] or kept[_VARIANTS - 1 :]
        for other in old:
            self.remove(key, other)
        self._entries.setdefault(key, []).insert(0, entry)
        self._entries.move_to_end(key)
        self._weigh(entry, 1)
        while self._memory > _MEMORY or self._files > _FILES or self._disk > _DISK:
            self.clear(next(iter(self._entries)))

    def remove(self, key: Key, entry: Entry) -> None:
        """Remove one entry, if it is still stored."""
        kept = self._entries.get(key, [])
        if entry in kept:
            kept.remove(entry)
            self._weigh(entry, -1)
            if not kept:
                del self._entries[key]

    def clear(self, key: Key) -> None:
        """Remove all variants of a key."""
        for entry in tuple(self._entries.get(key, ())):
            self.remove(key, entry)

    def drop(self, distribution: str, purged: Callable[[str, OriginResponse], bool]) -> None:
        """Remove the entries of a distribution for which ``purged`` returns True, given their target and response."""
        for key in [key for key in self._entries if key[0] == distribution]:
            for entry in [entry for entry in self._entries[key] if purged(key[1], entry.answer)]:
                self.remove(key, entry)

    def _weigh(self, entry: Entry, sign: int) -> None:
        size = entry.body.size
        self._memory += sign * (_HEADERS + (size if entry.body.in_memory else 0))
        self._disk += sign * (0 if entry.body.in_memory else size)
        self._files += sign * (not entry.body.in_memory)
