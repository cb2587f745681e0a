"""Has Postgres for a gateway, and has it again when its server dies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import chain, repeat
from typing import Any, Final

from infrai_async.local._locks import DirectoryInUse
from infrai_async.local.postgres.binaries import PostgresUnavailable
from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.services.base import PostgresStatus

_PAUSES: Final = (0.0, 0.5, 2.0, 8.0)
"""Seconds before each start of a server that died; after the last one it is given up."""
_STEADY: Final = 60.0
"""Seconds after which a server that dies is taken for one that ran well."""
_logger = logging.getLogger(__name__)


class Supervisor:
    """Starts Postgres, tells the services when it is there, and starts it again when it dies.

    Args:
        status: where the services find it.
        start: starts it for the first time.
        make_whole: finishes what a crash left half-made; called after every start.
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
        """Start it no more; a start under way is waited for, since half-started it cannot be stopped cleanly."""
        self._closing.set()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            self.postgres = await self._start()
            await self._publish(self.postgres)
            await self._keep(self.postgres)
        except (PostgresUnavailable, DirectoryInUse) as error:
            self._status.missing = str(error)
        except Exception as error:
            _logger.exception("Postgres did not start")
            self._status.missing = f"Postgres did not start ({type(error).__name__}): the gateway's log says why"
        finally:
            self._status.settled.set()

    async def _publish(self, postgres: Postgres) -> None:
        """Let calls have it once all is whole; if that cannot be just then, as while the state is away, in a while."""
        pauses = chain(_PAUSES[1:], repeat(_PAUSES[-1]))
        while not await self._is_whole(postgres):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._before_closing(postgres.died()), next(pauses))
                return

    async def _is_whole(self, postgres: Postgres) -> bool:
        self._status.settled.clear()
        self._status.server = postgres
        try:
            await self._make_whole(postgres)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try is the remedy
            self._status.server = None  # calls are told to come again
            _logger.warning("what was left half-made cannot be finished yet (%s: %s)", type(error).__name__, error)
            return False
        else:
            return True
        finally:
            self._status.settled.set()

    async def _keep(self, postgres: Postgres) -> None:
        pauses, begun = iter(_PAUSES), time.monotonic()
        while await self._before_closing(postgres.died()):
            self._status.server = None
            self._status.settled.clear()
            pauses = iter(_PAUSES) if time.monotonic() - begun > _STEADY else pauses
            pause = next(pauses, None)
            if pause is None:
                raise PostgresUnavailable("Postgres dies again and again: its log says why; then restart the gateway")
            _logger.warning("Postgres has ended; it is started again in %s s", pause)
            begun = time.monotonic()
            if await self._before_closing(asyncio.sleep(pause)):
                await self._revive(postgres)

    async def _revive(self, postgres: Postgres) -> None:
        try:
            await postgres.revive()
            await self._publish(postgres)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next try is the remedy
            _logger.warning("Postgres does not start again yet: %s", error)

    async def _before_closing(self, event: Awaitable[Any]) -> bool:
        """Wait for something, and return whether it came before the gateway closes."""
        awaited, closing = asyncio.ensure_future(event), asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait({awaited, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            awaited.cancel()
            closing.cancel()
        return not self._closing.is_set()
