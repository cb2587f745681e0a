"""How a call is carried out: once, paid for, and remembered.

A call without an effect is one transaction: look the key up, take the price, do the work, remember the answer. One
with an effect is two: the first also records the plan as ``running``; then the effect; the second makes the result
visible and the operation ``done``. What a crash leaves ``running`` is carried on at the next start, from the plan.

While it runs, an operation belongs to one gateway. Another that is asked for the same waits for it, and carries it on
only once it was made its own, because the first one is dead (`_presence`). One that comes back from the dead finds at
its second transaction that the operation is not its own any more, and waits in turn.

A refusal by the first transaction undoes it, the price and the key's record included: the same key may be tried again.
What refuses an effect is final or passing: the key remembers a final refusal (4xx) as it does an answer; a passing one
(5xx) it forgets. In both cases nothing is left and nothing is paid.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Collection
from contextlib import suppress
from functools import partial
from typing import Any, Final

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import RequestRefused, conflict
from infrai_async.local.postgres.databases import GONE
from infrai_async.local.services.account import open_checkout
from infrai_async.local.services.base import SERVICES, Data, Effect, Service, ServiceCall, ServiceContext, price_of
from infrai_async.local.state.tables import ACCOUNTS, OPERATIONS

_logger = logging.getLogger(__name__)
REMEMBERED: Final = 24 * 3600
"""Seconds for which an idempotency key is remembered."""
_POLL: Final = 0.1
"""Seconds between two looks at an operation of another gateway."""


@attrs.frozen
class Outcome:
    """What a call came to: the data that its caller sees, and its price."""

    data: Data
    nano: int


class _TakenOver(Exception):
    """The operation belongs to another gateway by now."""


@attrs.frozen
class _Pending:
    """An operation whose effect is still to come; ``nano`` is what this caller pays.

    Attributes:
        again: some of the effect may be done already.
    """

    id: str
    nano: int
    again: bool = False


class Executor:
    """Carries out calls, and the work that a crash left behind."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._works: dict[str, asyncio.Task[Data]] = {}
        self._closing = False

    async def execute(self, call: ServiceCall) -> Outcome:
        """Carry out a call.

        Raises:
            RequestRefused: it cannot be done; nothing of it is left.
        """
        service = SERVICES[call.capability.id]
        if service.before is not None:
            await service.before(self._context)
        step = await self._context.store.run(partial(_begin, call, service))
        if isinstance(step, _Pending):
            step = Outcome(await asyncio.shield(self._work(step.id, again=step.again)), step.nano)
        if call.capability.method == "DELETE":
            self._context.wake()
        return attrs.evolve(step, data=service.present(self._context, step.data))

    async def resume(self, service: str) -> Collection[asyncio.Task[Data]]:
        """Begin to carry on what of a service (``"db."``) is running and ours by now, and return what is at it.

        That is what a gateway began which is dead: this one before it was killed, or another one over the same state.
        One that closes begins nothing: what it leaves is for others, or its next start.
        """
        running = sa.select(OPERATIONS.c.id).where(
            OPERATIONS.c.state == "running", OPERATIONS.c.owner == self._context.id
        )
        theirs = running.where(OPERATIONS.c.capability.startswith(service)).order_by(OPERATIONS.c.started)
        ids = await self._context.store.run(lambda connection: connection.scalars(theirs).all())
        left = [] if self._closing else [id for id in ids if id not in self._works]
        if left:
            _logger.info("carrying on %d operations that were cut short", len(left))
        return [self._work(id, again=True) for id in left]

    async def finish(self, service: str) -> None:
        """Carry on what of a service is running and ours by now, and wait for the end of it."""
        if works := await self.resume(service):
            await asyncio.wait(works)

    async def aclose(self) -> None:
        """Wait for all effects of ours that are under way."""
        self._closing = True
        while self._works:
            await asyncio.wait(self._works.values())

    def _work(self, id: str, *, again: bool) -> asyncio.Task[Data]:
        """Return the one task that carries an operation to its end; whoever comes later waits for the same."""
        task = self._works.get(id)
        if task is None:
            task = self._works[id] = asyncio.create_task(self._complete(id, again))
            task.add_done_callback(partial(self._forget, id))
        return task

    def _forget(self, id: str, task: asyncio.Task[Data]) -> None:
        del self._works[id]
        if not task.cancelled():
            task.exception()  # whoever wanted it has it; asyncio need not report it a second time

    async def _complete(self, id: str, again: bool) -> Data:
        while (operation := await self._in_our_hands(id)).state == "running":
            with suppress(_TakenOver):
                return await self._carry_out(operation, again)
            again = True
        return _answer_of(operation)

    async def _in_our_hands(self, id: str) -> sa.Row[Any]:
        """Return an operation that has ended or is ours to carry out; for another gateway's, wait until it is."""
        while True:
            operation = await self._context.store.run(lambda connection: _load(connection, id))
            if operation is None:
                raise RequestRefused(503, "VENDOR_UNAVAILABLE", "this could not be done; it may be possible now")
            if operation.state != "running" or operation.owner == self._context.id:
                return operation
            if self._closing:
                raise RequestRefused(503, "VENDOR_UNAVAILABLE", "another gateway is at it, and this one closes")
            await asyncio.sleep(_POLL)

    async def _carry_out(self, operation: sa.Row[Any], again: bool) -> Data:
        run = self._context.store.run
        try:
            await self._perform(operation, again)
            await run(partial(_finish, operation))
        except RequestRefused as refusal:
            await run(partial(_undo, operation, refusal))
            self._context.wake()
            raise
        return dict(operation.data)

    async def _perform(self, operation: sa.Row[Any], again: bool) -> None:
        try:
            await _effect_of(operation).perform(self._context, operation.data)
        except RequestRefused as refusal:
            if not (again and refusal.status == 404):  # what was to go may have gone before the crash
                raise
        except LookupError:
            raise conflict("CONFLICT", "what this was to be copied from was deleted meanwhile") from None
        except GONE as error:
            raise RequestRefused(503, "VENDOR_UNAVAILABLE", "Postgres is away; it is started again") from error
        except Exception as error:
            _logger.exception("%s failed", operation.capability)
            raise RequestRefused(502, "VENDOR_ERROR", f"Postgres could not do it ({type(error).__name__})") from error


def sweep(connection: Connection, now: float) -> None:
    """Forget the keys whose time is over."""
    old = (OPERATIONS.c.state != "running") & (OPERATIONS.c.started < now - REMEMBERED)
    connection.execute(OPERATIONS.delete().where(old))


def _begin(call: ServiceCall, service: Service, connection: Connection) -> Outcome | _Pending:
    id = _operation_id(call)
    before = _load(connection, id) if call.key is not None else None
    if before is not None and not _is_over(before, call):
        return _again(call, before)
    data = service.run(call, connection)  # before the price: what is refused anyway is not refused for money
    nano = price_of(call.capability)
    if nano:
        _spend(call, connection, nano)
    effect = service.has_effect(call.context)
    if call.capability.mutates and (call.key is not None or effect):
        _remember(call, connection, id, "running" if effect else "done", nano, data)
    return _Pending(id, nano) if effect else Outcome(data, nano)


def _again(call: ServiceCall, before: sa.Row[Any]) -> Outcome | _Pending:
    if before.fingerprint != _fingerprint(call):
        raise conflict("IDEMPOTENCY_KEY_REUSED", "this idempotency key was used for another request of this capability")
    return _Pending(before.id, 0, again=True) if before.state == "running" else Outcome(_answer_of(before), 0)


def _answer_of(operation: sa.Row[Any]) -> Data:
    """Return the answer that an operation came to; its refusal is raised again."""
    if operation.state == "refused":
        raise RequestRefused(**operation.data)
    return dict(operation.data)


def _operation_id(call: ServiceCall) -> str:
    """Return what one key stands for: one path of one capability (CONTRACT.md 1.7), in either generation of it."""
    if call.key is None:
        return secrets.token_hex(32)
    in_path = {param.name for route in call.capability.routes for param in route.params if param.where == "path"}
    return _digest([call.account, call.capability.id, call.given(*sorted(in_path)), call.key])


def _fingerprint(call: ServiceCall) -> str:
    return _digest([_plain(dict(call.params)), _plain(dict(call.unknown))])


def _plain(value: Any) -> Any:
    """Write numbers one way: 5 and 5.0 are the same JSON number."""
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _is_over(operation: sa.Row[Any], call: ServiceCall) -> bool:
    return bool(operation.state != "running" and operation.started < call.now.timestamp() - REMEMBERED)


def _spend(call: ServiceCall, connection: Connection, nano: int) -> None:
    wallet = ACCOUNTS.update().where(ACCOUNTS.c.id == call.account, ACCOUNTS.c.nano >= nano)
    if connection.execute(wallet.values(nano=ACCOUNTS.c.nano - nano)).rowcount != 1:
        raise RequestRefused(
            402,
            "INSUFFICIENT_CREDIT",
            "the wallet cannot pay for this call",
            hint="open checkout_url and pay there, or POST /v1/account/topup first and open that answer's",
            extra={"checkout_url": open_checkout(call.context, call.account, connection)},
        )


def _load(connection: Connection, id: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(OPERATIONS).where(OPERATIONS.c.id == id)).one_or_none()


def _remember(call: ServiceCall, connection: Connection, id: str, state: str, nano: int, data: Data) -> None:
    connection.execute(OPERATIONS.delete().where(OPERATIONS.c.id == id))  # one whose 24 hours are over
    connection.execute(
        OPERATIONS.insert().values(
            id=id,
            account_id=call.account,
            capability=call.capability.id,
            fingerprint=_fingerprint(call),
            state=state,
            owner=call.context.id,
            nano=nano,
            data=data,
            started=int(call.now.timestamp()),
        )
    )


def _effect_of(operation: sa.Row[Any]) -> Effect:
    effect = SERVICES[operation.capability].effect
    if effect is None:
        raise TypeError(f"{operation.capability} has no effect to be carried on")
    return effect


def _finish(operation: sa.Row[Any], connection: Connection) -> None:
    _settle(connection, operation, OPERATIONS.update().values(state="done"))
    if not _effect_of(operation).finish(connection, operation.data):
        raise conflict("CONFLICT", "what this was to be a part of was deleted meanwhile")


def _undo(operation: sa.Row[Any], refusal: RequestRefused, connection: Connection) -> None:
    """Take an operation back whose effect could not be: its rows and its price; its key keeps a final refusal."""
    final = OPERATIONS.update().values(state="refused", data=refusal.to_record())
    _settle(connection, operation, OPERATIONS.delete() if refusal.retryable else final)
    _effect_of(operation).undo(connection, operation.data)
    refund = ACCOUNTS.update().where(ACCOUNTS.c.id == operation.account_id)
    connection.execute(refund.values(nano=ACCOUNTS.c.nano + operation.nano))


def _settle(connection: Connection, operation: sa.Row[Any], change: sa.Update | sa.Delete) -> None:
    """End an operation that is still its gateway's own."""
    own = (OPERATIONS.c.id == operation.id, OPERATIONS.c.state == "running", OPERATIONS.c.owner == operation.owner)
    if connection.execute(change.where(*own)).rowcount != 1:
        raise _TakenOver(operation.id)
