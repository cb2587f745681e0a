"""Clears up in the background: databases and blobs that nothing refers to any more, idempotency keys that are too old.

What is to go is marked in the state, in the transaction that deletes it; so it goes now, or after a crash at the next
start. Dropping a database makes Postgres write a checkpoint, which no caller should have to wait for.
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
"""Seconds until a drop that failed is tried again."""
_AT_ONCE: Final = 3
"""Drops at a time; fewer than Postgres makes databases at a time, so that whoever wants a new one need not wait."""
_logger = logging.getLogger(__name__)


class Janitor:
    """Drops what is marked whenever it is woken, and looks around once an hour anyway.

    Args:
        store: the state.
        blobs: the bytes of objects.
        postgres_status: whether there is a server to drop databases from.
    """

    def __init__(self, store: Store, blobs: Blobs, postgres_status: PostgresStatus) -> None:
        self._store = store
        self._blobs = blobs
        self._postgres_status = postgres_status
        self._wake = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work in the background."""
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Say that something was marked."""
        self._wake.set()

    async def reconcile(self, postgres: Postgres) -> None:
        """Mark databases that are ours but that the state does not know, as when an older state was put back.

        What is marked is closed before anybody is let in: a crash may have come between a deletion and its closing.
        """
        there, run = await postgres.databases(), self._store.run
        unknown = await run(partial(_mark_unknown, there))
        if unknown:
            _logger.warning("dropping %d databases that the state does not know: %s", *_listed(unknown))
        marked = await run(_marked)
        deleted = there.intersection(marked).difference(unknown)
        if deleted:
            _logger.info("dropping %d databases whose deletion was cut short: %s", *_listed(deleted))
        await postgres.close(marked)

    async def aclose(self, grace: float) -> None:
        """End, once everything marked was tried one last time; after ``grace`` seconds in any case."""
        self._closing = True
        self.wake()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=grace)
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            done = await self._clear_up()
            if self._closing:
                return
            await _wait(self._wake, _HOUR if done else _PAUSE)

    async def _clear_up(self) -> bool:
        """Do what there is to do, and return whether all of it is done; no failure ends the janitor."""
        try:
            await self._store.run(lambda connection: sweep(connection, time.time()))
            await self._blobs.clear()
            return await self._drop_marked()
        except RequestRefused as refusal:
            _logger.warning("clearing up has to wait: %s", refusal)
            return False
        except Exception:
            _logger.exception("clearing up failed; it is tried again")
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
        except Exception as error:  # noqa: BLE001 - whatever it is, the mark stays and it is tried again
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
