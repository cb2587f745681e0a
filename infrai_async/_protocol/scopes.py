"""What surrounds a call: the budgets, deadlines and operations in whose ``with`` blocks it is made.

Blocks live in the context (``contextvars``): a task carries on those that it was started in, and no other task sees
them. A call finds its own by the pool of its client, so that they hold for every view of it and for no other client.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar
from datetime import timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from hashlib import sha256
from heapq import heappop, heappush
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import attrs

from infrai_async._protocol.request import canonical_call, seconds
from infrai_async.errors import BudgetExceeded, InvalidArgument, TimeoutError

if TYPE_CHECKING:
    from infrai_async.capabilities import Capability

R = TypeVar("R")
_NEVER: Final = float("inf")
_UNKNOWN: Final = "unknown"
_ZERO: Final = Decimal(0)

# The caller's own context may round to few digits.
_exactly: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
add_exactly: Final = _exactly.add
multiply_exactly: Final = _exactly.multiply

blocks: Final[ContextVar[tuple[ActiveScope, ...]]] = ContextVar("infrai_async_scopes", default=())
"""The blocks around the code that runs, outermost first."""


class Block:
    """A ``with`` block that holds for one client's calls: those made inside it, and in tasks that are started inside.

    In a coroutine it is a plain ``with``, too. A thread that is started inside does not carry it on by itself:
    ``asyncio.to_thread`` does, or ``contextvars.copy_context().run``.
    """

    def __init__(self, pool: object) -> None:
        self._pool = weakref.ref(pool)  # a context may outlive the client, and would keep it

    def __enter__(self) -> Self:
        blocks.set((*blocks.get(), self._enter()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not by a token: in a generator the block may end in another context, or before one that it encloses.
        entered = blocks.get()
        for index in reversed(range(len(entered))):
            if entered[index].block is self:
                blocks.set(entered[:index] + entered[index + 1 :])
                break

    def _enter(self) -> ActiveScope:
        return ActiveScope(self)

    def _serves(self, pool: object) -> bool:
        return self._pool() is pool


class Budget(Block):
    """What the calls of a block may cost, and what they did cost (``client.budget``); usable from any thread."""

    def __init__(self, pool: object, limit: Decimal) -> None:
        super().__init__(pool)
        self._limit = limit
        self._usd = _ZERO
        self._by_capability: dict[str, Decimal] = {}
        self._by_vendor: dict[str, Decimal] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Budget: {self.usd:f} of {self.limit:f} USD spent>"

    @property
    def limit(self) -> Decimal:
        """What may be spent, in USD."""
        return self._limit

    @property
    def usd(self) -> Decimal:
        """What was spent so far, in USD: the exact sum of what the answers said they cost."""
        return self._usd

    @property
    def by_capability(self) -> Mapping[str, Decimal]:
        """What was spent so far, in USD, by the id of the capability; it does not change later."""
        # Without the lock: a signal's handler may ask in the middle of a charge, and would wait for it for ever.
        return MappingProxyType(self._by_capability.copy())

    @property
    def by_vendor(self) -> Mapping[str, Decimal]:
        """What was spent so far, in USD, by vendor (``"unknown"`` where the answer names none); as above."""
        return MappingProxyType(self._by_vendor.copy())

    def _check(self) -> None:
        spent = self._usd
        if spent >= self._limit:
            raise BudgetExceeded(f"the budget of the surrounding block is spent: {spent:f} of {self._limit:f} USD")

    def _charge(self, cost: Decimal, capability: str, vendor: str) -> None:
        with self._lock:
            self._usd = add_exactly(self._usd, cost)
            for sums, name in ((self._by_capability, capability), (self._by_vendor, vendor)):
                sums[name] = add_exactly(sums.get(name, _ZERO), cost)


class Deadline(Block):
    """How long the calls of a block may take together (``client.deadline``), from entering it."""

    def __init__(self, pool: object, length: float) -> None:
        super().__init__(pool)
        self._seconds = length

    def __repr__(self) -> str:
        return f"<Deadline: {self._seconds:g} s>"

    def _enter(self) -> ActiveScope:
        return ActiveScope(self, until=time.monotonic() + self._seconds)


class Operation(Block):
    """A name from which the calls of a block get their idempotency keys (``client.operation``)."""

    def __init__(self, pool: object, name: str) -> None:
        super().__init__(pool)
        self._name = name

    def __repr__(self) -> str:
        return f"<Operation {self._name!r}>"

    @property
    def name(self) -> str:
        """The name that was given, without those of the operations around it."""
        return self._name

    def _enter(self) -> ActiveScope:
        return ActiveScope(self, ordinals=Ordinals())


class Ordinals:
    """Numbers calls that are equal; one that fails gives its number back, so that who repeats it repeats its key."""

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}
        self._free: dict[bytes, list[int]] = {}
        self._lock = threading.Lock()

    def take(self, call: bytes) -> int:
        """Return the lowest number that no equal call has."""
        with self._lock:
            if free := self._free.get(call):
                return heappop(free)
            number = self._next.get(call, 0)
            self._next[call] = number + 1
            return number

    def release(self, call: bytes, number: int) -> None:
        """Let the next equal call have this number."""
        with self._lock:
            heappush(self._free.setdefault(call, []), number)


@attrs.frozen(eq=False)
class ActiveScope:
    """One time that a block was entered; ``until`` by ``time.monotonic``."""

    block: Block
    until: float = _NEVER
    ordinals: Ordinals | None = None


@attrs.frozen(eq=False)
class DerivedKey:
    """The idempotency key that an operation gives to one call."""

    key: str
    _call: bytes
    _number: int
    _ordinals: Ordinals

    async def release_on_failure(self, running: Coroutine[Any, Any, R]) -> R:
        """Wait for the call, and give its number back unless it goes well."""
        try:
            return await running
        except BaseException:
            self._ordinals.release(self._call, self._number)
            raise


@attrs.frozen(eq=False)
class Scopes:
    """All that surrounds one call, outermost first; ``until`` is the earliest deadline, by ``time.monotonic``."""

    entered: tuple[ActiveScope, ...]
    until: float
    budgets: tuple[Budget, ...]

    def check(self, now: float) -> None:
        """Make sure that the call may be sent now.

        Raises:
            TimeoutError: the time of a surrounding block is up.
            BudgetExceeded: a surrounding budget is spent.
        """
        if now >= self.until:
            raise TimeoutError("the time of the surrounding block is up")
        for budget in self.budgets:
            budget._check()

    def charge(self, cost: Decimal, capability: str, vendor: str | None) -> None:
        """Charge every surrounding budget with what an answer said it cost."""
        for budget in self.budgets:
            budget._charge(cost, capability, vendor or _UNKNOWN)

    def derive_key(self, capability: Capability[Any], arguments: Mapping[str, object]) -> DerivedKey | None:
        """Claim the idempotency key of a call, which has none if no operation surrounds it, or if it only reads.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        ordinals = next((each.ordinals for each in reversed(self.entered) if each.ordinals is not None), None)
        # Without the API key the service cannot tell callers apart: equal names would get each other's answers.
        if ordinals is None or not capability.mutates or capability.public:
            return None
        digest = sha256(canonical_call(_name(self.entered) or "", capability, arguments))
        call = digest.digest()
        number = ordinals.take(call)
        digest.update(b"%d" % number)
        return DerivedKey(digest.hexdigest(), call, number, ordinals)


def surrounding(pool: object) -> Scopes | None:
    """Return what surrounds a call of the client with this pool, made here and now."""
    entered = blocks.get()
    if not entered:
        return None
    own = tuple(each for each in entered if each.block._serves(pool))
    if not own:
        return None
    budgets = dict.fromkeys(each.block for each in own if isinstance(each.block, Budget))  # once, if entered twice
    return Scopes(own, min(each.until for each in own), tuple(budgets))


def current_operation(pool: object = None) -> str | None:
    """Return the name of the operation in force here, with those around it: ``"outer/inner"``.

    Args:
        pool: whose operation; ``None``: that of the client whose operation was entered last.
    """
    entered = blocks.get()
    if not entered:
        return None
    if pool is None:
        pool = next((each.block._pool() for each in reversed(entered) if each.ordinals is not None), None)
    return _name(tuple(each for each in entered if each.block._serves(pool)))


def _name(entered: tuple[ActiveScope, ...]) -> str | None:
    names = [each.block.name for each in entered if isinstance(each.block, Operation)]
    return "/".join(names) or None


class Scoped:
    """The ``with`` blocks that both clients offer."""

    def _scope(self) -> object:
        """Return what the blocks are kept by: the pool that all views share."""
        raise NotImplementedError

    def budget(self, usd: Decimal | float | str) -> Budget:
        """Return a block whose calls are refused once they have cost so much.

        ``with client.budget(usd=0.50) as spent:`` holds for this client's calls, reads included, through any view of
        it, in the block and in tasks started inside. A call is refused with ``BudgetExceeded``, unsent, once
        ``spent.usd`` has reached ``usd``; this is looked at in the moment before each attempt, so calls that wait for
        a place are refused too, and only what is in flight then may still add its cost. A call whose earlier attempt
        failed raises that attempt's error instead. Budgets nest: a call counts for, and must fit, every one around it.
        Entered again, it goes on counting. A thread started inside is not inside (see ``Budget``).

        Args:
            usd: the limit in USD; a float is read as it is written (``0.1`` is a tenth).

        Raises:
            InvalidArgument: ``usd`` is no finite amount of money, or negative.
        """
        return Budget(self._scope(), _money("usd", usd))

    def deadline(self, seconds: float | timedelta) -> Deadline:
        """Return a block that bounds the time of all its calls together: their waiting, attempts, pauses and pages.

        ``with client.deadline(30):`` holds for this client's calls, through any view of it, in the block and in tasks
        started inside. Each call ends by its own ``timeout`` or by the deadline, whichever comes first, with
        ``TimeoutError``; one begun later is not sent at all. Your own code is not interrupted. Deadlines nest: the
        earliest counts. The time runs from entering the block.

        Args:
            seconds: the length of time, positive.

        Raises:
            InvalidArgument: ``seconds`` is no positive, finite length of time.
        """
        return Deadline(self._scope(), _seconds(seconds))

    def operation(self, name: str) -> Operation:
        """Return a block whose calls can be made again, by a restarted job or a re-run cell, with the same results.

        In ``with client.operation("deploy-42"):`` every call of this client that changes something, through any view
        of it and in tasks started inside too, carries an idempotency key derived from the name, the capability, its
        arguments, and how many equal calls came before it in the block. So whoever runs the block again, as long as
        the service remembers its keys (24 hours by default), gets the same project back, and not a second paid one.

        The count begins afresh each time the block is entered. A call that failed does not count: made again in the
        block, it carries the same key. An ``idempotency_key`` of your own wins, and does not count either. Operations
        nest: the name is then ``"outer/inner"``. ``account.activate``, which goes out without an API key, gets a
        fresh key as ever.

        Args:
            name: what is being done; the same for each run of the same job, another for another job.

        Raises:
            InvalidArgument: ``name`` is no text, empty, or has characters that cannot be printed.
        """
        if not isinstance(name, str) or not name or not name.isprintable():
            raise InvalidArgument("name must be a non-empty string of printable characters")
        return Operation(self._scope(), str.__str__(name))


def _seconds(value: float | timedelta) -> float:
    return seconds("seconds", value)


def _money(name: str, value: object) -> Decimal:
    wrong = InvalidArgument(f"{name} must be a finite amount of money, 0 or more")
    if isinstance(value, bool) or not isinstance(value, Decimal | float | int | str):
        raise wrong
    try:
        amount = Decimal(float.__repr__(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise wrong from None
    if not amount.is_finite() or amount < 0:
        raise wrong
    return amount
