"""Heartbeats of gateways that share a state, and takeover of the operations of a gateway that died.

Each gateway increments a counter in the state. If the counter of another gateway does not change during several beats
of the observer, that gateway is presumed dead. No clocks are compared, and while the state is unavailable to all, none
of them misses a beat. A gateway presumed dead may merely have stalled; it then finds that its operations have a new
owner, and continues with new calls.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import RequestRefused
from infrai_async.local.services.base import ServiceContext
from infrai_async.local.services.executor import Executor
from infrai_async.local.state.tables import GATEWAYS, OPERATIONS

_BEAT: Final = 1.0
"""Seconds between two heartbeats."""
_MISSED: Final = 5
"""Heartbeats of the observer after which a gateway without one of its own is presumed dead."""
_logger = logging.getLogger(__name__)


class Heartbeat:
    """Send this gateway's heartbeats, and take over the operations of gateways that stopped sending theirs.

    Args:
        context: the context of this gateway, with its ``id``.
        executor: resumes the operations that are taken over.
    """

    def __init__(self, context: ServiceContext, executor: Executor) -> None:
        self._context = context
        self._executor = executor
        self._missed: dict[str, tuple[int, int]] = {}
        self._was_away = False
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, alone: bool) -> None:
        """Register this gateway, and take over operations without a living owner.

        Args:
            alone: whether no other gateway can be using the state. Then all other registrations are stale and all
                running operations are taken over.
        """
        await self._context.store.run(partial(_enter, self._context.id, alone))
        if not alone:
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Unregister this gateway; any operation that it has not completed is left to the others."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            with suppress(RequestRefused):  # the state is unavailable; the others will notice the missing heartbeats
                await self._context.store.run(partial(_leave, self._context.id))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_BEAT)
            try:
                await self._beat()
            except Exception as error:  # noqa: BLE001 - the next heartbeat is the retry, whatever failed
                self._was_away = True
                _logger.warning("a heartbeat could not be sent (%s)", type(error).__name__)

    async def _beat(self) -> None:
        run = self._context.store.run
        beats = await run(partial(_beat, self._context.id))
        left = self._missed.keys() - beats.keys()
        self._missed = {id: (beat, self._count(id, beat)) for id, beat in beats.items()}
        dead = {id: beat for id, (beat, missed) in self._missed.items() if missed >= _MISSED}
        if dead:
            _logger.warning("%d other gateway(s) stopped sending heartbeats", len(dead))
            # Before the takeover: a statement of a gateway that merely stalled must not run beside the same statement
            # of its successor, and the advisory locks of its sessions must be free.
            await self._cut_off(dead)
        if dead or left:
            taken = await run(partial(_take_over, self._context.id, dead))
            _logger.info("took over %d operation(s) of other gateways", taken)
            self._context.wake()
        # After a failed heartbeat the others may have presumed this gateway dead and have died themselves since, so
        # its own operations may need resuming too.
        if dead or left or self._was_away:
            await self._carry_on()
        self._was_away = False

    async def _carry_on(self) -> None:
        if self._context.s3 is not None:
            await self._executor.resume("storage.")
        if self._context.postgres is not None:  # otherwise the supervisor resumes them once it is up
            await self._executor.resume("db.")

    async def _cut_off(self, dead: Iterable[str]) -> None:
        postgres = self._context.postgres
        if postgres is not None:
            for id in dead:
                await postgres.cut_off(id)

    def _count(self, id: str, beat: int) -> int:
        before, missed = self._missed.get(id, (beat, -1))
        return missed + 1 if beat == before else 0


def _enter(me: str, alone: bool, connection: Connection) -> None:
    if alone:
        connection.execute(GATEWAYS.delete())
    connection.execute(GATEWAYS.insert().values(id=me, beat=0))
    _take_over(me, {}, connection)


def _leave(me: str, connection: Connection) -> None:
    connection.execute(GATEWAYS.delete().where(GATEWAYS.c.id == me))


def _beat(me: str, connection: Connection) -> dict[str, int]:
    """Increment this gateway's counter, registering it again if others removed it, and return the others' counters."""
    beaten = GATEWAYS.update().where(GATEWAYS.c.id == me).values(beat=GATEWAYS.c.beat + 1)
    if connection.execute(beaten).rowcount == 0:
        connection.execute(GATEWAYS.insert().values(id=me, beat=0))
    others = sa.select(GATEWAYS.c.id, GATEWAYS.c.beat).where(GATEWAYS.c.id != me)
    return {row.id: row.beat for row in connection.execute(others)}


def _take_over(me: str, dead: Mapping[str, int], connection: Connection) -> int:
    """Unregister dead gateways, take over all operations without a living owner, and return their number."""
    # The counter is compared again in this transaction, so a gateway that has sent a heartbeat since it was observed
    # keeps its registration and its operations.
    for id, beat in dead.items():
        connection.execute(GATEWAYS.delete().where(GATEWAYS.c.id == id, GATEWAYS.c.beat == beat))
    owner = OPERATIONS.c.owner
    orphaned = sa.or_(owner.is_(None), owner.not_in(sa.select(GATEWAYS.c.id)))
    taken = OPERATIONS.update().where(OPERATIONS.c.state == "running", orphaned).values(owner=me)
    return connection.execute(taken).rowcount
