"""Several gateways over one state: each says that it lives, and finishes the work of one that does so no more.

A gateway counts its beats up in the state. One whose count stands still for some beats of an observer's own is taken
for dead: no clocks are compared, and while the state is away for all nobody ages. It may only have stalled; then it
finds its work in other hands, and goes on with what comes next.
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
"""Seconds between two beats."""
_MISSED: Final = 5
"""Beats of ours after which one that has not beaten is taken for dead."""
_logger = logging.getLogger(__name__)


class Heartbeat:
    """Says that this gateway lives, and takes over from those that do not.

    Args:
        context: whose ``id`` is this gateway's.
        executor: carries on what is taken over.
    """

    def __init__(self, context: ServiceContext, executor: Executor) -> None:
        self._context = context
        self._executor = executor
        self._missed: dict[str, tuple[int, int]] = {}
        self._was_away = False
        self._task: asyncio.Task[None] | None = None

    async def start(self, *, alone: bool) -> None:
        """Be there, and take over what has no living owner: with ``alone``, whatever anybody left."""
        await self._context.store.run(partial(_enter, self._context.id, alone))
        if not alone:
            self._task = asyncio.create_task(self._run())

    async def aclose(self) -> None:
        """Be gone; what was ours has ended by now, or is for the others."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            with suppress(RequestRefused):  # the state is away: the others will find out
                await self._context.store.run(partial(_leave, self._context.id))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_BEAT)
            try:
                await self._beat()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next beat is the remedy
                self._was_away = True
                _logger.warning("no sign of life could be given (%s)", type(error).__name__)

    async def _beat(self) -> None:
        run = self._context.store.run
        beats = await run(partial(_beat, self._context.id))
        left = self._missed.keys() - beats.keys()
        self._missed = {id: (beat, self._count(id, beat)) for id, beat in beats.items()}
        dead = {id: beat for id, (beat, missed) in self._missed.items() if missed >= _MISSED}
        if dead:
            _logger.warning("%d other gateway(s) gave no sign of life", len(dead))
            await self._cut_off(dead)
        if dead or left:
            taken = await run(partial(_take_over, self._context.id, dead))
            _logger.info("%d operation(s) of other gateways taken over", taken)
            self._context.wake()
        if dead or left or self._was_away:
            await self._carry_on()
        self._was_away = False

    async def _carry_on(self) -> None:
        if self._context.s3 is not None:
            await self._executor.resume("storage.")
        if self._context.postgres is not None:  # else it is carried on when that comes
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
    """Count up, also after others gave this one up, and return the counts of the others."""
    beaten = GATEWAYS.update().where(GATEWAYS.c.id == me).values(beat=GATEWAYS.c.beat + 1)
    if connection.execute(beaten).rowcount == 0:
        connection.execute(GATEWAYS.insert().values(id=me, beat=0))
    others = sa.select(GATEWAYS.c.id, GATEWAYS.c.beat).where(GATEWAYS.c.id != me)
    return {row.id: row.beat for row in connection.execute(others)}


def _take_over(me: str, dead: Mapping[str, int], connection: Connection) -> int:
    """Strike off who has not beaten since, and make all operations ours that have no living owner."""
    for id, beat in dead.items():
        connection.execute(GATEWAYS.delete().where(GATEWAYS.c.id == id, GATEWAYS.c.beat == beat))
    owner = OPERATIONS.c.owner
    orphaned = sa.or_(owner.is_(None), owner.not_in(sa.select(GATEWAYS.c.id)))
    taken = OPERATIONS.update().where(OPERATIONS.c.state == "running", orphaned).values(owner=me)
    return connection.execute(taken).rowcount
