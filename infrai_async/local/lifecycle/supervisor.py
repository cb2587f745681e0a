"""Start Postgres for a gateway, and restart it when its server dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import chain, repeat
from typing import Any, Final

from infrai_async.local._locks import DirectoryInUse
from infrai_async.local.postgres.binaries import DiskFull, PostgresNotYet, PostgresUnavailable
from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.services.base import PostgresStatus

_PAUSES: Final = (0.0, 0.5, 2.0, 8.0)
"""Seconds before each new start of a server that does not start or keeps dying; after the last one it is given up.

Only a full disk is not: the last pause is repeated until there is space.
"""
_STEADY: Final = 60.0
"""Seconds of running after which a crash counts as the first one again."""
_DYING: Final = "Postgres keeps dying: see its log for the reason, then restart the gateway"
_logger = logging.getLogger(__name__)


class Supervisor:
    """Start Postgres, tell the services when it is available, and restart it when it dies.

    Args:
        status: where the services look for the server.
        start: starts the server for the first time.
        make_whole: reconciles the databases and resumes interrupted operations; called after every start.
    """

    def __init__(
        self,
        status: PostgresStatus,
        start: Callable[[], Awaitable[Postgres]],
        make_whole: Callable[[Postgres], Awaitable[None]],
    ) -> None:
        self.postgres: Postgres | None = None
        self._status = status
        self._start = start
        self._make_whole = make_whole
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Stop supervising. A start in progress is awaited, since a half-started server cannot be stopped cleanly."""
        self._closing.set()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            await self._keep()
        except (PostgresUnavailable, DirectoryInUse) as error:
            self._status.missing = str(error)
        except Exception as error:
            _logger.exception("Postgres did not start")
            self._status.missing = f"Postgres did not start ({type(error).__name__}): the gateway's log says why"
        finally:
            self._status.settled.set()

    async def _keep(self) -> None:
        """Start the server, and start it again whenever it does not run, until the gateway closes or gives it up."""
        pauses, begun = iter(_PAUSES), time.monotonic()
        while not self._closing.is_set():
            failure = await self._run_once()
            if self._closing.is_set():
                return
            if isinstance(failure, DiskFull):
                # Said at once, because it lasts until somebody frees space.
                self._status.delayed = str(failure)
                self._status.settled.set()
            pauses = iter(_PAUSES) if time.monotonic() - begun > _STEADY else pauses
            pause = next(pauses, _PAUSES[-1] if isinstance(failure, DiskFull) else None)
            if pause is None:
                raise failure if self.postgres is None else PostgresUnavailable(_DYING)
            _logger.warning("%s; it will be started again in %s s", failure, pause)
            begun = time.monotonic()
            await self._before_closing(asyncio.sleep(pause))

    async def _run_once(self) -> PostgresUnavailable:
        """Start the server and make it available until it dies or the gateway closes; return why it does not run.

        Raises:
            Exception: if the server cannot be started for a reason that no further try changes.
        """
        try:
            if self.postgres is None:
                self.postgres = await self._start()
            else:
                await self.postgres.revive()
        except PostgresNotYet as error:
            return error
        except Exception as error:
            if self.postgres is None:
                raise
            return PostgresUnavailable(f"Postgres could not be started again ({type(error).__name__}: {error})")
        await self._publish(self.postgres)
        if await self._before_closing(self.postgres.died()):
            self._status.server = None
            self._status.settled.clear()
        return self.postgres.why_it_died()

    async def _publish(self, postgres: Postgres) -> None:
        """Make the server available to calls once recovery has succeeded; retry as long as it fails.

        Recovery fails, for example, while the shared state is unavailable. If the server dies meanwhile, the retries
        end and ``_keep`` restarts it.
        """
        pauses = chain(_PAUSES[1:], repeat(_PAUSES[-1]))
        while not await self._is_whole(postgres):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._before_closing(postgres.died()), next(pauses))
                return

    async def _is_whole(self, postgres: Postgres) -> bool:
        # Recovery uses the same services as calls do, so it needs the server in the status. Clearing ``settled`` first
        # makes calls wait meanwhile: none may see a half-made database or one that is marked for deletion.
        self._status.settled.clear()
        self._status.server = postgres
        try:
            await self._make_whole(postgres)
        except Exception as error:  # noqa: BLE001 - recovery is retried, whatever failed
            self._status.server = None  # calls get a 503 that asks them to retry
            _logger.warning(
                "recovery of interrupted operations failed and will be retried (%s: %s)", type(error).__name__, error
            )
            return False
        else:
            self._status.delayed = None
            return True
        finally:
            self._status.settled.set()

    async def _before_closing(self, event: Awaitable[Any]) -> bool:
        """Wait for an event, and return whether it happened before the gateway started to close."""
        awaited, closing = asyncio.ensure_future(event), asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({awaited, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            awaited.cancel()
            closing.cancel()
        return not self._closing.is_set()
