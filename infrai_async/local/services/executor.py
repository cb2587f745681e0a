"""Carry out each call exactly once, charge for it, and remember its result under its idempotency key.

A call without an effect is one transaction: look up the idempotency key, do the work, charge the price and record the
result. A call with an effect takes two. The first also records the plan as a ``running`` operation; then the effect is
performed; the second transaction publishes the result and marks the operation ``done``. An operation that a crash
leaves ``running`` is resumed from its plan at the next start.

A running operation is owned by one gateway. Another gateway that receives the same request waits for it, and resumes
it only after taking it over from an owner that stopped sending heartbeats (``lifecycle.heartbeat``). An owner that was
merely stalled discovers the loss in its second transaction, which changes nothing, and then waits like anyone else.

If the first transaction is refused, it is rolled back with the charge and the key's record, so the key can be used
again. If the effect fails, its rows are removed and the price is refunded. The key then remembers a final error (4xx)
as it would a result, and forgets a transient one (5xx) so that the client may retry.
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

from infrai_async.local._errors import RequestRefused, conflict, out_of_resources
from infrai_async.local.postgres.databases import GONE
from infrai_async.local.services.account import open_checkout
from infrai_async.local.services.base import SERVICES, Data, Effect, Service, ServiceCall, ServiceContext, price_of
from infrai_async.local.state.tables import ACCOUNTS, OPERATIONS, spend

_logger = logging.getLogger(__name__)
REMEMBERED: Final = 24 * 3600
"""Seconds for which an idempotency key is remembered."""
_POLL: Final = 0.1
"""Seconds between two checks on an operation that another gateway owns."""


@attrs.frozen
class Outcome:
    """The result of a call: the data for the caller, and the price in nano-dollars."""

    data: Data
    nano: int


class _TakenOver(Exception):
    """Another gateway has taken over the operation."""


@attrs.frozen
class _Pending:
    """An operation whose effect has yet to be performed.

    Attributes:
        nano: the price this caller pays, in nano-dollars.
        again: whether part of the effect may have been performed already.
    """

    id: str
    nano: int
    again: bool = False


class Executor:
    """Carry out calls, and resume the operations that a crash interrupted."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._works: dict[str, asyncio.Task[Data]] = {}
        self._closing = False

    async def execute(self, call: ServiceCall) -> Outcome:
        """Carry out a call.

        Raises:
            RequestRefused: the call failed; it has left no trace and cost nothing.
        """
        service = SERVICES[call.capability.id]
        if service.before is not None:
            await service.before(self._context)
        if not call.capability.mutates:
            return await self._look(call, service)
        step = await self._context.store.run(partial(_begin, call, service))
        if isinstance(step, _Pending):
            # Shielded: the charge is committed by now, so a client that disconnects must not stop the effect halfway.
            step = Outcome(await asyncio.shield(self._work(step.id, again=step.again)), step.nano)
        if call.capability.method == "DELETE":
            self._context.wake()
        return attrs.evolve(step, data=service.present(call.context, step.data))

    async def _look(self, call: ServiceCall, service: Service) -> Outcome:
        """Carry out a call that only reads: first what it reads, so that a refusal costs nothing, then the charge."""
        data, nano = await self._context.store.read(partial(service.run, call)), price_of(call.capability)
        if nano and not await self._context.store.charge(call.account, nano):
            checkout = await self._context.store.read(partial(open_checkout, call.context, call.account))
            raise _insufficient(checkout)
        return Outcome(service.present(call.context, data), nano)

    async def resume(self, service: str) -> Collection[asyncio.Task[Data]]:
        """Start tasks for the interrupted operations of a service that this gateway owns, and return the tasks.

        These operations were begun by a gateway that died: this one before a ``kill -9``, or another one that shares
        the state. A gateway that is closing starts none; it leaves them to other gateways or to its next start.

        Args:
            service: the prefix of the capability ids, such as ``"db."``.
        """
        running = sa.select(OPERATIONS.c.id).where(
            OPERATIONS.c.state == "running", OPERATIONS.c.owner == self._context.id
        )
        theirs = running.where(OPERATIONS.c.capability.startswith(service)).order_by(OPERATIONS.c.started)
        ids = await self._context.store.run(lambda connection: connection.scalars(theirs).all())
        left = [] if self._closing else [id for id in ids if id not in self._works]
        if left:
            _logger.info("resuming %d interrupted operations", len(left))
        return [self._work(id, again=True) for id in left]

    async def finish(self, service: str) -> None:
        """Resume the interrupted operations of a service and wait until they have ended."""
        if works := await self.resume(service):
            await asyncio.wait(works)

    async def aclose(self) -> None:
        """Wait for all effects that this gateway is performing."""
        self._closing = True
        while self._works:
            await asyncio.wait(self._works.values())

    def _work(self, id: str, *, again: bool) -> asyncio.Task[Data]:
        """Return the task that completes an operation; concurrent requests with the same key share one task."""
        task = self._works.get(id)
        if task is None:
            task = self._works[id] = asyncio.create_task(self._complete(id, again))
            task.add_done_callback(partial(self._forget, id))
        return task

    def _forget(self, id: str, task: asyncio.Task[Data]) -> None:
        del self._works[id]
        if not task.cancelled():
            task.exception()  # every waiter has received it; without this asyncio would log it as never retrieved

    async def _complete(self, id: str, again: bool) -> Data:
        # A loop, because ownership may be lost between the effect and the second transaction. From then on the new
        # owner performs the effect, and this gateway can only wait for the result, or for the operation to return.
        while (operation := await self._in_our_hands(id)).state == "running":
            with suppress(_TakenOver):
                return await self._carry_out(operation, again)
            again = True
        return _answer_of(operation)

    async def _in_our_hands(self, id: str) -> sa.Row[Any]:
        """Return an operation once it has ended or is owned by this gateway; until then, poll."""
        while True:
            operation = await self._context.store.run(lambda connection: _load(connection, id))
            if operation is None:
                raise RequestRefused(503, "VENDOR_UNAVAILABLE", "the operation failed and was undone; try again")
            if operation.state != "running" or operation.owner == self._context.id:
                return operation
            if self._closing:
                raise RequestRefused(
                    503,
                    "VENDOR_UNAVAILABLE",
                    "another gateway is carrying out this operation and this one is closing; try again",
                )
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
            # A resumed deletion may find nothing left to delete, because it was performed just before the crash.
            if not (again and refusal.status == 404):
                raise
        except LookupError:
            raise conflict("CONFLICT", "the database to copy was deleted in the meantime") from None
        except GONE as error:
            raise RequestRefused(
                503, "VENDOR_UNAVAILABLE", "Postgres is not reachable at the moment; try again"
            ) from error
        except Exception as error:
            if (lacking := out_of_resources(error)) is not None:
                raise lacking from error
            _logger.exception("%s failed", operation.capability)
            raise RequestRefused(502, "VENDOR_ERROR", f"the operation failed ({type(error).__name__})") from error


def sweep(connection: Connection, now: float) -> None:
    """Forget the idempotency keys that have expired."""
    old = (OPERATIONS.c.state != "running") & (OPERATIONS.c.started < now - REMEMBERED)
    connection.execute(OPERATIONS.delete().where(old))


def _begin(call: ServiceCall, service: Service, connection: Connection) -> Outcome | _Pending:
    id = _operation_id(call)
    before = _load(connection, id) if call.key is not None else None
    if before is not None and not _is_over(before, call):
        return _again(call, before)
    # The work comes before the charge, so that an invalid request is reported as such even when the wallet is empty.
    data = service.run(call, connection)
    nano = price_of(call.capability)
    if nano:
        _spend(call, connection, nano)
    effect = service.has_effect(call.context)
    if call.capability.mutates and (call.key is not None or effect):
        _remember(call, connection, id, "running" if effect else "done", nano, data)
    return _Pending(id, nano) if effect else Outcome(data, nano)


def _again(call: ServiceCall, before: sa.Row[Any]) -> Outcome | _Pending:
    if before.fingerprint != _fingerprint(call):
        raise conflict(
            "IDEMPOTENCY_KEY_REUSED", "this idempotency key was already used for a different request; use a new key"
        )
    return _Pending(before.id, 0, again=True) if before.state == "running" else Outcome(_answer_of(before), 0)


def _answer_of(operation: sa.Row[Any]) -> Data:
    """Return the result of an operation that has ended, or raise the error it ended with."""
    if operation.state == "refused":
        raise RequestRefused(**operation.data)
    return dict(operation.data)


def _operation_id(call: ServiceCall) -> str:
    """Return the id under which the operation is recorded.

    An idempotency key applies to one capability and its path parameters (CONTRACT.md 1.7). The parameters of all
    routes count, so a retry through the other generation of a route finds the same operation.
    """
    if call.key is None:
        return secrets.token_hex(32)
    in_path = {param.name for route in call.capability.routes for param in route.params if param.where == "path"}
    return _digest([call.account, call.capability.id, call.given(*sorted(in_path)), call.key])


def _fingerprint(call: ServiceCall) -> str:
    return _digest([_plain(dict(call.params)), _plain(dict(call.unknown))])


def _plain(value: Any) -> Any:
    """Normalize numbers, since 5 and 5.0 are the same JSON number."""
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
    if not spend(connection, call.account, nano):
        raise _insufficient(open_checkout(call.context, call.account, connection))


def _insufficient(checkout_url: str | None) -> RequestRefused:
    return RequestRefused(
        402,
        "INSUFFICIENT_CREDIT",
        "the wallet does not hold enough credit for this call",
        hint="pay at checkout_url, or POST /v1/account/topup and pay at the checkout_url it returns",
        extra={"checkout_url": checkout_url},
    )


def _load(connection: Connection, id: str) -> sa.Row[Any] | None:
    return connection.execute(sa.select(OPERATIONS).where(OPERATIONS.c.id == id)).one_or_none()


def _remember(call: ServiceCall, connection: Connection, id: str, state: str, nano: int, data: Data) -> None:
    connection.execute(OPERATIONS.delete().where(OPERATIONS.c.id == id))  # an expired record that awaits the sweep
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
        raise TypeError(f"{operation.capability} has no effect to resume")
    return effect


def _finish(operation: sa.Row[Any], connection: Connection) -> None:
    _settle(connection, operation, OPERATIONS.update().values(state="done"))
    if not _effect_of(operation).finish(connection, operation.data):
        raise conflict("CONFLICT", "the resource was deleted while it was being created")


def _undo(operation: sa.Row[Any], refusal: RequestRefused, connection: Connection) -> None:
    """Remove the rows of an operation whose effect failed and refund its price; the key keeps a final error."""
    final = OPERATIONS.update().values(state="refused", data=refusal.to_record())
    _settle(connection, operation, OPERATIONS.delete() if refusal.retryable else final)
    _effect_of(operation).undo(connection, operation.data)
    refund = ACCOUNTS.update().where(ACCOUNTS.c.id == operation.account_id)
    connection.execute(refund.values(nano=ACCOUNTS.c.nano + operation.nano))


def _settle(connection: Connection, operation: sa.Row[Any], change: sa.Update | sa.Delete) -> None:
    """End an operation, unless another gateway has taken it over.

    The owner is compared in the same transaction that ends the operation: a gateway that stalled long enough to be
    presumed dead must neither publish nor undo what its successor is carrying out.
    """
    own = (OPERATIONS.c.id == operation.id, OPERATIONS.c.state == "running", OPERATIONS.c.owner == operation.owner)
    if connection.execute(change.where(*own)).rowcount != 1:
        raise _TakenOver(operation.id)
