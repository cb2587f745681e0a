"""Count the requests and bytes of the edge, by distribution and minute.

Counts are kept in memory and written to the state once a second, and before statistics are read. A crash loses at most
the last second.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local.state.store import Store
from infrai_async.local.state.tables import COUNTED, DISTRIBUTIONS, TRAFFIC

_EVERY: Final = 1.0
_logger = logging.getLogger(__name__)


class TrafficCounters:
    """Count traffic, and write the counts to the state."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: dict[tuple[str, int], list[int]] = {}
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to write the counts periodically."""
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop, after one last attempt to write the counts."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._try_to_flush()

    def count(self, distribution: str, *, hit: bool, size: int) -> None:
        """Count a request and the bytes of its response."""
        counts = self._counts.setdefault((distribution, int(time.time()) // 60), [0, 0, 0])
        counts[0 if hit else 1] += 1
        counts[2] += size

    async def flush(self) -> None:
        """Write all counts to the state."""
        # The lock makes a reader of statistics wait for a write in progress, whose counts have already left memory.
        async with self._one_at_a_time:
            counts, self._counts = self._counts, {}
            if not counts:
                return
            try:
                await self._store.run(partial(_add, counts))
            except Exception:
                for key, (hits, misses, size) in counts.items():
                    now = self._counts.setdefault(key, [0, 0, 0])
                    self._counts[key] = [now[0] + hits, now[1] + misses, now[2] + size]
                raise

    async def _run(self) -> None:
        """Write the counts periodically."""
        while True:
            await asyncio.sleep(_EVERY)
            await self._try_to_flush()

    async def _try_to_flush(self) -> None:
        try:
            await self.flush()
        except Exception as error:  # noqa: BLE001 - no failure may end the counting or block the gateway's closing
            _logger.warning("the edge's traffic counts could not be written (%s)", error)


def _add(counts: Mapping[tuple[str, int], list[int]], connection: Connection) -> None:
    known = set(
        connection.scalars(sa.select(DISTRIBUTIONS.c.id).where(DISTRIBUTIONS.c.id.in_({id for id, _ in counts})))
    )
    for (id, minute), numbers in counts.items():
        if id not in known:
            continue  # the distribution has been deleted together with its statistics
        there = TRAFFIC.update().where(TRAFFIC.c.distribution_id == id, TRAFFIC.c.minute == minute)
        more = {name: TRAFFIC.c[name] + number for name, number in zip(COUNTED, numbers, strict=True)}
        if not connection.execute(there.values(more)).rowcount:
            fresh = dict(zip(COUNTED, numbers, strict=True))
            connection.execute(TRAFFIC.insert().values(distribution_id=id, minute=minute, **fresh))
