"""The scopes of a call: the ``with`` blocks of budgets, deadlines and operations in which it is made.

The active blocks are kept in a context variable: a task inherits the blocks in which it was started, and other tasks
do not see them. A call finds its own blocks by the pool of its client, so they apply to all views of that client and
to no other client.

A context cannot be changed from outside. A block may be left in another context than the one that it was entered in: a
generator that its reader leaves early is closed by another task, and a web framework may run the two halves of a
dependency in two threads. The entry into the block therefore says whether it is over, and contexts that still hold it
ignore it from then on.
"""

from __future__ import annotations

import threading
import time
import warnings
import weakref
from collections.abc import Coroutine, Mapping
from contextvars import ContextVar, Token
from datetime import timedelta
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from hashlib import sha256
from heapq import heappop, heappush
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

import attrs

from infrai_async._protocol.request import canonical_call, seconds
from infrai_async.errors import BudgetExceeded, InvalidArgument, TimeoutError

if TYPE_CHECKING:
    from infrai_async.capabilities import Capability

R = TypeVar("R")
_NEVER: Final = float("inf")
_UNKNOWN: Final = "unknown"
_ZERO: Final = Decimal(0)
_MOST_DIGITS: Final = 30  # of an amount of money; it is written without an exponent

# A context of our own, because the caller's decimal context may round to a few digits.
_exactly: Final = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
add_exactly: Final = _exactly.add
multiply_exactly: Final = _exactly.multiply

blocks: Final[ContextVar[tuple[ActiveScope, ...]]] = ContextVar("infrai_async_scopes", default=())
"""The active blocks of the running code, outermost first."""


class Block:
    """A ``with`` block that applies to one client's calls: those made inside it, and in tasks started inside it.

    It is a plain ``with`` in coroutines, too. A thread that is started inside the block does not inherit it, unless it
    is started by ``asyncio.to_thread`` or runs ``contextvars.copy_context().run``; a view of the client that carries
    the block takes it anywhere (``client.with_options``). When the block is left, it is over for every task, thread and
    generator. Leaving it in another context than it was entered in works too, but warns, because the calls that it was
    meant for may have been made outside it.
    """

    _option = ""  # its argument of ``client.with_options``

    def __init__(self, pool: object) -> None:
        self._pool = weakref.ref(pool)  # a context may outlive the client, and must not keep it alive
        self._entries: list[ActiveScope] = []
        self._endless: ActiveScope | None = None
        self._left = False

    def __enter__(self) -> Self:
        scope = self._enter()
        self._entries.append(scope)
        scope.token = blocks.set((*_active(), scope))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        here = [scope for scope in blocks.get() if scope.block is self and not scope.over]
        if not here and not self._entries:
            return  # left more often than entered
        scope = here[-1] if here else self._entries[-1]
        scope.over = self._left = True
        self._entries.remove(scope)
        if not _was_set_here(scope):
            warnings.warn(
                f"a block of client.{self._option}() was left in another context than it was entered in, so it may not "
                f"have applied to the calls inside it: make them with client.with_options({self._option}=...)",
                RuntimeWarning,
                stacklevel=2,
            )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a block cannot be pickled or copied, because it belongs to its client: make one with "
            f"client.{self._option}(...) in each process"
        )

    def _enter(self) -> ActiveScope:
        return ActiveScope(self)

    def _carried(self) -> ActiveScope | None:
        """Return what applies to the calls of a view that carries the block, outside the block.

        That is its latest entry, or one without an end if it was never entered; ``None`` once it has been left.
        """
        try:
            return self._entries[-1]
        except IndexError:  # no check beforehand, as another thread may leave the block
            pass
        if self._left:
            return None
        if self._endless is None:
            self._endless = self._enter()
        return self._endless

    def _serves(self, pool: object) -> bool:
        return self._pool() is pool


class Budget(Block):
    """A limit on the cost of a block's calls, and what they have cost so far (``client.budget``).

    It can be read from any thread.
    """

    _option = "budget"

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
        """The maximum to spend, in USD."""
        return self._limit

    @property
    def usd(self) -> Decimal:
        """The amount spent so far, in USD: the exact sum of the costs that the responses reported."""
        return self._usd

    @property
    def by_capability(self) -> Mapping[str, Decimal]:
        """A snapshot of the amounts spent so far, in USD, by capability id."""
        # Without the lock: a signal handler may run in the middle of a charge, in the thread that holds the lock.
        return MappingProxyType(self._by_capability.copy())

    @property
    def by_vendor(self) -> Mapping[str, Decimal]:
        """A snapshot of the amounts spent so far, in USD, by vendor; ``"unknown"`` if a response names none."""
        return MappingProxyType(self._by_vendor.copy())

    def _check(self) -> None:
        spent = self._usd
        if spent >= self._limit:
            raise BudgetExceeded(f"the budget of the enclosing block is spent: {spent:f} of {self._limit:f} USD")

    def _charge(self, cost: Decimal, capability: str, vendor: str) -> None:
        with self._lock:
            self._usd = add_exactly(self._usd, cost)
            for sums, name in ((self._by_capability, capability), (self._by_vendor, vendor)):
                sums[name] = add_exactly(sums.get(name, _ZERO), cost)


class Deadline(Block):
    """A limit on the total time of a block's calls, counted from entering the block (``client.deadline``)."""

    _option = "deadline"

    def __init__(self, pool: object, length: float) -> None:
        super().__init__(pool)
        self._seconds = length

    def __repr__(self) -> str:
        return f"<Deadline: {self._seconds:g} s>"

    def _enter(self) -> ActiveScope:
        return ActiveScope(self, until=time.monotonic() + self._seconds)


class Operation(Block):
    """A name from which the idempotency keys of a block's calls are derived (``client.operation``)."""

    _option = "operation"

    def __init__(self, pool: object, name: str) -> None:
        super().__init__(pool)
        self._name = name

    def __repr__(self) -> str:
        return f"<Operation {self._name!r}>"

    @property
    def name(self) -> str:
        """The name of this operation, without the names of the operations that enclose it."""
        return self._name

    def _enter(self) -> ActiveScope:
        return ActiveScope(self, ordinals=Ordinals())


class Ordinals:
    """Numbers equal calls. A call that fails releases its number, so that repeating it repeats its idempotency key."""

    def __init__(self) -> None:
        self._next: dict[bytes, int] = {}
        self._free: dict[bytes, list[int]] = {}
        self._lock = threading.Lock()

    def take(self, call: bytes) -> int:
        """Return the lowest number that no equal call holds."""
        with self._lock:
            if free := self._free.get(call):
                return heappop(free)
            number = self._next.get(call, 0)
            self._next[call] = number + 1
            return number

    def release(self, call: bytes, number: int) -> None:
        """Make the number available to the next equal call."""
        with self._lock:
            heappush(self._free.setdefault(call, []), number)


@attrs.define(eq=False)
class ActiveScope:
    """A block that has been entered.

    Attributes:
        block: the block.
        until: its deadline, by ``time.monotonic``.
        ordinals: the numbers of its equal calls, for an operation.
        token: tells the context in which it was entered.
        over: whether it has been left.
    """

    block: Block
    until: float = _NEVER
    ordinals: Ordinals | None = None
    token: Token[tuple[ActiveScope, ...]] | None = None
    over: bool = False


def _active() -> tuple[ActiveScope, ...]:
    """Return the active blocks of the running code, and forget those that are over."""
    entered = blocks.get()
    if any(scope.over for scope in entered):
        entered = tuple(scope for scope in entered if not scope.over)
        blocks.set(entered)
    return entered


def _was_set_here(scope: ActiveScope) -> bool:
    """Return whether a block was entered in the running context, and forget it here."""
    entered = blocks.get()
    try:
        blocks.reset(scope.token)  # type: ignore[arg-type] # only a context itself can tell
    except ValueError:
        return False
    finally:
        # Not what it was before the block: others may have been entered since, and left in another order.
        blocks.set(tuple(each for each in entered if not each.over))
    return True


@attrs.frozen(eq=False)
class DerivedKey:
    """The idempotency key that an operation derives for one call."""

    key: str
    _call: bytes
    _number: int
    _ordinals: Ordinals

    async def release_on_failure(self, running: Coroutine[Any, Any, R]) -> R:
        """Await the call; if it fails or is cancelled, release its number, so that a repetition gets the same key."""
        try:
            return await running
        except BaseException:
            self._ordinals.release(self._call, self._number)
            raise


@attrs.frozen(eq=False)
class Scopes:
    """The blocks that enclose one call, outermost first; ``until`` is the earliest deadline, by ``time.monotonic``."""

    entered: tuple[ActiveScope, ...]
    until: float
    budgets: tuple[Budget, ...]

    def check(self, now: float) -> None:
        """Raise if an enclosing block forbids sending the call now.

        Raises:
            TimeoutError: the deadline of an enclosing block has passed.
            BudgetExceeded: the budget of an enclosing block is spent.
        """
        if now >= self.until:
            passed = [each.block for each in self.entered if each.until == self.until]
            raise TimeoutError(f"the deadline of the enclosing block has passed: {passed[0]!r}")
        for budget in self.budgets:
            budget._check()

    def charge(self, cost: Decimal, capability: str, vendor: str | None) -> None:
        """Charge the reported cost of a response to every enclosing budget."""
        for budget in self.budgets:
            budget._charge(cost, capability, vendor or _UNKNOWN)

    def derive_key(self, capability: Capability[Any], arguments: Mapping[str, object]) -> DerivedKey | None:
        """Derive the idempotency key of a call from the innermost operation and those around it.

        Returns:
            The key, which the call must release if it fails. ``None`` if no operation encloses the call, if the call
            makes nothing, or if it is sent without an API key.

        Raises:
            InvalidArgument: an argument is wrong.
        """
        ordinals = next((each.ordinals for each in reversed(self.entered) if each.ordinals is not None), None)
        # Without an API key the service cannot tell accounts apart: equal operation names would share responses.
        if ordinals is None or not capability.mutates or capability.expires or capability.public:
            return None
        digest = sha256(canonical_call(_name(self.entered) or "", capability, arguments))
        call = digest.digest()
        number = ordinals.take(call)
        digest.update(b"%d" % number)
        return DerivedKey(digest.hexdigest(), call, number, ordinals)

    @property
    def operation(self) -> str | None:
        """The full name of the operation, for example ``"outer/inner"``; ``None`` if there is none."""
        return _name(self.entered)


def surrounding(pool: object, carried: tuple[Block, ...] = ()) -> Scopes | None:
    """Return the blocks that apply to a call made now; ``None`` if there are none.

    Args:
        pool: the pool of the client that makes the call.
        carried: the blocks that its view carries, which count as inside those of the running code.
    """
    own = tuple(each for each in _active() if each.block._serves(pool))
    if carried:
        around = {each.block for each in own}
        entries = (block._carried() for block in carried if block not in around)
        own += tuple(entry for entry in entries if entry is not None)
    if not own:
        return None
    budgets = dict.fromkeys(
        each.block for each in own if isinstance(each.block, Budget)
    )  # unique, even if entered twice
    return Scopes(own, min(each.until for each in own), tuple(budgets))


def current_operation(pool: object = None) -> str | None:
    """Return the full name of the current operation, for example ``"outer/inner"``; ``None`` outside of any.

    Args:
        pool: the pool of the client. ``None`` stands for the client whose operation was entered last.
    """
    entered = _active()
    if not entered:
        return None
    if pool is None:
        pool = next((each.block._pool() for each in reversed(entered) if each.ordinals is not None), None)
    return _name(tuple(each for each in entered if each.block._serves(pool)))


def _name(entered: tuple[ActiveScope, ...]) -> str | None:
    names = [each.block.name for each in entered if isinstance(each.block, Operation)]
    return "/".join(names) or None


def carry(pool: object, carried: tuple[Block, ...], **given: object) -> tuple[Block, ...]:
    """Return the blocks that a view carries after adding those that were given, each by its argument's name.

    Raises:
        InvalidArgument: an argument is no block of its kind, is a block of another client, or has been left.
    """
    for name, block in given.items():
        if not isinstance(block, Block) or block._option != name:
            raise InvalidArgument(f"{name} must be what client.{name}(...) returns, such as x in `with ... as x`")
        if not block._serves(pool):
            raise InvalidArgument(f"{name} is a block of another client: a block applies to the client that made it")
        if block._carried() is None:
            raise InvalidArgument(f"{name} is a block that has been left: pass it inside the block")
        if block not in carried:
            carried = (*carried, block)
    return carried


class Scoped:
    """The methods of both clients that create ``with`` blocks."""

    def _scope(self) -> object:
        """Return the object that identifies the client: the pool that all its views share."""
        raise NotImplementedError

    def budget(self, usd: Decimal | float | str) -> Budget:
        """Return a ``with`` block that refuses calls once the calls inside it have cost a given amount.

        ``with client.budget(usd=0.50) as spent:`` applies to all calls of this client and its views, reads included,
        that are made in the block or in tasks started inside it. Once ``spent.usd`` has reached ``usd``, a call raises
        ``BudgetExceeded`` and is not sent. The budget is checked right before each attempt, so calls that wait for a
        slot are refused too, and only calls that are in flight by then can still add to the cost. A call whose
        previous attempt failed raises the error of that attempt instead.

        Budgets nest: a call counts towards every enclosing budget and is refused by each. A budget that is entered
        again continues counting. A thread that is started inside the block does not inherit it (see ``Budget``).

        Args:
            usd: the limit in USD. A float is taken as it is written: ``0.1`` is exactly one tenth.

        Returns:
            The budget, whose ``usd``, ``by_capability`` and ``by_vendor`` report the cost so far.

        Raises:
            InvalidArgument: ``usd`` is negative, or not a finite amount of money.
        """
        return Budget(self._scope(), _money("usd", usd))

    def deadline(self, seconds: float | timedelta) -> Deadline:
        """Return a ``with`` block that limits the total time of the calls inside it.

        ``with client.deadline(30):`` applies to all calls of this client and its views that are made in the block or
        in tasks started inside it. The time starts when the block is entered. It includes waiting, attempts, pauses
        and pages. A call raises ``TimeoutError`` at its own ``timeout`` or at the deadline, whichever is earlier; a
        call made after the deadline is not sent. Code other than the client's calls is not interrupted. Deadlines
        nest: the earliest one applies.

        Args:
            seconds: the time limit, a positive number of seconds or a ``timedelta``.

        Returns:
            The deadline, to enter by ``with``.

        Raises:
            InvalidArgument: ``seconds`` is not a positive, finite length of time.
        """
        return Deadline(self._scope(), _seconds(seconds))

    def operation(self, name: str) -> Operation:
        """Return a ``with`` block that makes its calls idempotent across runs, for example of a restarted job.

        In ``with client.operation("deploy-42"):`` every call of this client or its views that changes something
        carries an idempotency key derived from the operation's name, the capability, the arguments, and the number of
        equal calls before it in the block. Calls in tasks started inside the block are included. Running the block
        again therefore returns the same project rather than creating, and paying for, a second one, as long as the
        service remembers the keys (24 hours by default).

        The count restarts each time the block is entered. A failed call is not counted: repeating it in the block
        uses the same key. A call with an ``idempotency_key`` of its own uses that key and is not counted either.
        Operations nest: the name is then ``"outer/inner"``. ``account.activate``, which is sent without an API key, and
        ``storage.object.presign``, which makes nothing and whose URLs expire, always get a fresh key.

        Args:
            name: the name of the operation: the same for every run of a job, and different for different jobs.

        Returns:
            The operation, to enter by ``with``.

        Raises:
            InvalidArgument: ``name`` is not a non-empty string of printable characters.
        """
        if not isinstance(name, str) or not name or not name.isprintable():
            raise InvalidArgument("name must be a non-empty string of printable characters")
        return Operation(self._scope(), str.__str__(name))


def _seconds(value: float | timedelta) -> float:
    return seconds("seconds", value)


def _money(name: str, value: object) -> Decimal:
    wrong = InvalidArgument(f"{name} must be a finite amount of money in USD, 0 or more")
    if isinstance(value, bool) or not isinstance(value, Decimal | float | int | str):
        raise wrong
    try:
        amount = Decimal(float.__repr__(value) if isinstance(value, float) else value)
    except InvalidOperation:
        raise wrong from None
    if not amount.is_finite() or amount < 0 or abs(amount.adjusted()) > _MOST_DIGITS:
        raise wrong
    return amount
