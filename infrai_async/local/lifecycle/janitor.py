"""Clean up in the background: deleted databases and blobs, and expired idempotency keys.

Whatever must be cleaned up is marked in the state by the transaction that deletes it, so a crash cannot lose it: the
next start finds the mark. Dropping a database makes Postgres write a checkpoint, which no caller should wait for.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import RequestRefused
from infrai_async.local.objects.blobs import Blobs
from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.services.base import PostgresStatus
from infrai_async.local.services.executor import sweep
from infrai_async.local.state.store import Store
from infrai_async.local.state.tables import DATABASES

_HOUR: Final = 3600.0
_PAUSE: Final = 1.0
"""Seconds until a failed drop is retried."""
_AT_ONCE: Final = 3
"""Concurrent drops; fewer than ``Postgres`` allows operations at a time, so that creations need not wait for drops."""
_logger = logging.getLogger(__name__)


class Janitor:
    """Clean up whenever it is woken, and once an hour.

    Args:
        store: the state.
        blobs: the blobs of deleted objects.
        postgres_status: the Postgres server, if there is one.
    """

    def __init__(self, store: Store, blobs: Blobs, postgres_status: PostgresStatus) -> None:
        self._store = store
        self._blobs = blobs
        self._postgres_status = postgres_status
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the background task."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Request a cleanup soon, since something was marked as deleted."""
        self._wake.set()

    async def reconcile(self, postgres: Postgres) -> None:
        """Mark the gateway's databases that the state does not know, and close all marked databases.

        Unknown databases occur when an older copy of the state was restored. Closing comes before any call can use the
        server, because a crash may have come between the deletion of a database and its closing.
        """
        there, run = await postgres.databases(), self._store.run
        unknown = await run(partial(_mark_unknown, there))
        if unknown:
            _logger.warning("dropping %d databases that the state does not know: %s", *_listed(unknown))
        marked = await run(_marked)
        deleted = there.intersection(marked).difference(unknown)
        if deleted:
            _logger.info("dropping %d databases whose deletion was interrupted: %s", *_listed(deleted))
        await postgres.close(marked)

    async def aclose(self, grace: float) -> None:
        """Clean up one last time and stop; after ``grace`` seconds, stop in any case."""
        self._closing = True
        self.wake()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=grace)
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            # Cleared before the work: a mark that is set during the work wakes the janitor again.
            self._wake.clear()
            done = await self._clear_up()
            if self._closing:
                return
            await _wait(self._wake, _HOUR if done else _PAUSE)

    async def _clear_up(self) -> bool:
        """Clean up everything, and return whether all of it succeeded; a failure does not end the janitor."""
        try:
            await self._store.run(lambda connection: sweep(connection, time.time()))
            await self._blobs.clear()
            return await self._drop_marked()
        except RequestRefused as refusal:
            _logger.warning("the cleanup is postponed: %s", refusal)
            return False
        except Exception:
            _logger.exception("the cleanup failed and will be retried")
            return False

    async def _drop_marked(self) -> bool:
        postgres = self._postgres_status.server
        if postgres is None:
            return True
        turns = asyncio.Semaphore(_AT_ONCE)

        async def drop(name: str) -> bool:
            async with turns:
                return await self._drop(postgres, name)

        return all(await asyncio.gather(*map(drop, await self._store.run(_marked))))

    async def _drop(self, postgres: Postgres, name: str) -> bool:
        try:
            await postgres.drop(name)
        except Exception as error:  # noqa: BLE001 - the mark stays, so the drop is retried, whatever failed
            _logger.warning("database %s could not be dropped yet (%s)", name, type(error).__name__)
            return False
        gone = DATABASES.delete().where(DATABASES.c.name == name)
        await self._store.run(lambda connection: connection.execute(gone).rowcount)
        return True


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _marked(connection: Connection) -> list[str]:
    return list(connection.scalars(sa.select(DATABASES.c.name).where(DATABASES.c.pending_delete)))


def _mark_unknown(there: frozenset[str], connection: Connection) -> frozenset[str]:
    unknown = there.difference(connection.scalars(sa.select(DATABASES.c.name)))
    if unknown:
        connection.execute(DATABASES.insert(), [{"name": name, "pending_delete": True} for name in unknown])
    return unknown


def _listed(names: frozenset[str]) -> tuple[int, str]:
    return len(names), ", ".join(sorted(names))
