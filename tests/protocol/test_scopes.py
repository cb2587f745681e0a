"""What surrounds a call, without a loop or a socket: sums, limits, keys, and which blocks are whose."""

from __future__ import annotations

import gc
import itertools
import json
import math
import threading
import time
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from enum import StrEnum
from hashlib import sha256
from typing import Any

import pytest

from infrai_async._protocol.flow import Call, Pause, Result, RouteMemory, run
from infrai_async._protocol.reader import ResponseReader
from infrai_async._protocol.request import Request, check_key
from infrai_async._protocol.response import NoResponse, Response
from infrai_async._protocol.retry import RetryPolicy
from infrai_async._protocol.scopes import (
    Block,
    Budget,
    Ordinals,
    Scoped,
    Scopes,
    blocks,
    carry,
    current_operation,
    surrounding,
)
from infrai_async._transport.call_state import CallState
from infrai_async._transport.stats import Counters
from infrai_async.capabilities import CAPABILITIES
from infrai_async.errors import (
    BudgetExceeded,
    InfraiError,
    InvalidArgument,
    ServerError,
    TimeoutError,
    TransportError,
)
from infrai_async.models import FlagRule

CREATE = "db.project.create"


class Client(Scoped):
    """All that a client is to its blocks: something to keep them by."""

    def _scope(self) -> object:
        return self

    def around(self) -> Scopes:
        scopes = surrounding(self)
        assert scopes is not None
        return scopes

    def key(self, row: str = CREATE, **arguments: Any) -> str:
        claim = self.around().derive_key(CAPABILITIES[row], arguments or {"name": "shop"})
        assert claim is not None
        return claim.key


@pytest.fixture
def client() -> Client:
    return Client()


# --- blocks and their client ---------------------------------------------------------------------------------------


def test_nothing_surrounds_a_call_outside_of_every_block(client: Client) -> None:
    assert surrounding(client) is None
    with client.budget(1), client.deadline(1), client.operation("a"):
        assert surrounding(client) is not None
    assert surrounding(client) is None


def test_a_block_holds_for_its_client_alone(client: Client) -> None:
    other = Client()
    with client.budget(0):
        assert surrounding(other) is None
        with other.deadline(5), other.operation("theirs"):
            assert client.around().until == math.inf
            assert client.around().derive_key(CAPABILITIES[CREATE], {"name": "shop"}) is None
            assert other.around().budgets == ()


def test_a_block_ends_when_it_raises(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), client.budget(1):
        raise ZeroDivisionError
    assert surrounding(client) is None


def test_blocks_may_end_in_any_order(client: Client) -> None:
    first, second = client.budget(1), client.budget(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert client.around().budgets == (second,)
    second.__exit__(None, None, None)
    assert surrounding(client) is None


def test_a_block_may_end_in_another_context_than_it_began_in(client: Client) -> None:
    with client.budget(1) as outer:
        with pytest.warns(RuntimeWarning, match=r"with_options\(budget=...\)"):
            copy_context().run(outer.__exit__, None, None, None)
        assert surrounding(client) is None
    copy_context().run(outer.__enter__)
    with pytest.warns(RuntimeWarning, match="another context"):
        outer.__exit__(None, None, None)
    assert surrounding(client) is None


def test_a_copied_context_keeps_its_blocks_until_they_are_left(client: Client) -> None:
    with client.budget(1) as spent:
        copied = copy_context()
        assert copied.run(client.around).budgets == (spent,)
    assert copied.run(surrounding, client) is None
    assert copied.run(blocks.get) == ()


@pytest.mark.parametrize("kind", ["budget", "deadline", "operation"])
def test_a_block_that_is_left_elsewhere_leaves_those_around_and_inside_it(client: Client, kind: str) -> None:
    def block(number: int) -> Block:
        options = {"budget": client.budget, "deadline": client.deadline, "operation": client.operation}
        return options[kind](f"n{number}" if kind == "operation" else number + 1)  # type: ignore[operator]

    outer, middle, inner = block(0), block(1), block(2)
    with outer:
        middle.__enter__()
        with inner:
            with pytest.warns(RuntimeWarning, match=f"client.{kind}"):
                copy_context().run(middle.__exit__, None, None, None)
            assert [scope.block for scope in client.around().entered] == [outer, inner]
        assert [scope.block for scope in client.around().entered] == [outer]
    assert surrounding(client) is None


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_blocks_end_in_any_order_without_a_warning(client: Client, order: tuple[int, ...]) -> None:
    entered: list[Block] = [
        client.budget(1).__enter__(),
        client.deadline(9).__enter__(),
        client.operation("a").__enter__(),
    ]
    left = set(entered)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for index in order:
            entered[index].__exit__(None, None, None)
            left.remove(entered[index])
            scopes = surrounding(client)
            assert {scope.block for scope in scopes.entered} == left if scopes is not None else not left
    assert blocks.get() == ()


def test_a_block_entered_in_two_contexts_ends_in_each_by_itself(client: Client) -> None:
    spent = client.budget(1)
    one, other = copy_context(), copy_context()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one.run(spent.__enter__)
        other.run(spent.__enter__)
        one.run(spent.__exit__, None, None, None)
        assert one.run(surrounding, client) is None
        assert other.run(client.around).budgets == (spent,)
        other.run(spent.__exit__, None, None, None)
    assert other.run(surrounding, client) is None


def test_a_block_left_too_often_does_nothing(client: Client) -> None:
    with client.budget(1) as spent:
        pass
    with client.budget(2) as other:
        spent.__exit__(None, None, None)
        assert client.around().budgets == (other,)


def test_what_makes_nothing_but_an_expiring_response_gets_a_fresh_key(client: Client) -> None:
    presign = CAPABILITIES["storage.object.presign"]
    with client.operation("a"):
        assert client.around().derive_key(presign, {"bucket": "b", "key": "k"}) is None
    assert [row.id for row in CAPABILITIES.values() if row.expires] == [presign.id]


# --- blocks that a view carries --------------------------------------------------------------------------------------


def carried(client: Client, **given: Block) -> Scopes | None:
    return surrounding(client, carry(client, (), **given))


def test_a_view_carries_its_blocks_into_any_context(client: Client) -> None:
    empty = Context()
    with client.budget(1) as spent, client.deadline(60) as until, client.operation("deploy") as name:
        held = carry(client, (), budget=spent, deadline=until, operation=name)
        scopes = empty.run(surrounding, client, held)
        assert scopes is not None
        assert (scopes.budgets, scopes.operation) == ((spent,), "deploy")
        assert scopes.until < time.monotonic() + 61
    assert empty.run(surrounding, client, held) is None


def test_what_a_view_carries_counts_once_inside_the_block(client: Client) -> None:
    with client.operation("outer"), client.budget(1) as spent, client.operation("inner") as name:
        scopes = carried(client, budget=spent, operation=name)
        assert scopes is not None
        assert (scopes.budgets, scopes.operation) == ((spent,), "outer/inner")
        scopes.charge(Decimal("0.1"), "x", None)
        assert spent.usd == Decimal("0.1")
        first = scopes.derive_key(CAPABILITIES[CREATE], {"name": "shop"})
        second = client.around().derive_key(CAPABILITIES[CREATE], {"name": "shop"})
        assert first is not None
        assert second is not None
        assert first.key != second.key  # the second of two equal calls, whichever way it is made


def test_a_view_of_a_view_adds_its_blocks(client: Client) -> None:
    with client.budget(1) as one, client.budget(2) as two:
        held = carry(client, carry(client, (), budget=one), budget=two)
        assert Context().run(surrounding, client, held).budgets == (one, two)  # type: ignore[union-attr]
        assert carry(client, held, budget=one) == held


def test_a_block_that_was_never_entered_has_no_end_in_a_view(client: Client) -> None:
    scopes = carried(client, budget=client.budget(1), deadline=client.deadline(60), operation=client.operation("a"))
    assert scopes is not None
    assert scopes.operation == "a"
    assert 0 < scopes.until - time.monotonic() <= 60


def test_a_view_follows_its_block_from_entry_to_entry(client: Client) -> None:
    spent = client.budget(1)
    held, empty = carry(client, (), budget=spent), Context()
    for _ in range(2):
        with spent, spent:
            assert empty.run(surrounding, client, held).budgets == (spent,)  # type: ignore[union-attr]
        assert empty.run(surrounding, client, held) is None


def test_a_view_keeps_a_block_that_another_thread_is_still_in(client: Client) -> None:
    name, other, empty = client.operation("deploy"), Context(), Context()
    other.run(name.__enter__)
    with name:
        held = carry(client, (), operation=name)
    assert empty.run(surrounding, client, held).operation == "deploy"  # type: ignore[union-attr]
    other.run(name.__exit__, None, None, None)
    assert empty.run(surrounding, client, held) is None


def test_two_views_of_a_block_that_was_never_entered_count_together(client: Client) -> None:
    name = client.operation("deploy")
    keys = []
    for _ in range(2):
        scopes = carried(client, operation=name)
        assert scopes is not None
        derived = scopes.derive_key(CAPABILITIES[CREATE], {"name": "shop"})
        assert derived is not None
        keys.append(derived.key)
    assert keys[0] != keys[1]


def test_what_a_view_cannot_carry_is_refused_by_name(client: Client) -> None:
    with client.budget(1) as left:
        pass
    other = Client()
    for given, said in [
        ({"budget": left}, "budget is a block that has been left"),
        ({"budget": client.deadline(1)}, "budget must be what client.budget"),
        ({"deadline": 30}, "deadline must be what client.deadline"),
        ({"operation": "deploy"}, "operation must be what client.operation"),
        ({"operation": None}, "operation must be"),
        ({"budget": other.budget(1)}, "budget is a block of another client"),
    ]:
        with pytest.raises(InvalidArgument, match=said):
            carry(client, (), **given)


def test_a_thread_started_inside_is_outside_unless_it_carries_the_context(client: Client) -> None:
    seen: list[object] = []
    with client.budget(1):
        context = copy_context()
        for look in (lambda: surrounding(client), lambda: context.run(surrounding, client)):
            thread = threading.Thread(target=lambda look=look: seen.append(look()))
            thread.start()
            thread.join(10)
    assert seen[0] is None
    assert isinstance(seen[1], Scopes)


def test_a_context_does_not_keep_the_client() -> None:
    client = Client()
    gone = weakref.ref(client)
    with client.budget(1), client.operation("a"), client.deadline(1):
        copied = copy_context()
    del client
    gc.collect()
    assert gone() is None
    assert copied.run(surrounding, Client()) is None


# --- budgets ---------------------------------------------------------------------------------------------------------


class Price(StrEnum):
    HALF = "0.50"


@pytest.mark.parametrize(
    ("given", "limit"),
    [
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (0, "0"),
        (3, "3"),
        ("0.50", "0.50"),
        (Decimal("1.10"), "1.10"),
        (Price.HALF, "0.50"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_a_limit_is_read_as_it_is_written(client: Client, given: Any, limit: str) -> None:
    with localcontext() as context:
        context.prec = 2
        assert client.budget(given).limit == Decimal(limit)
    assert f"of {Decimal(limit):f} USD" in repr(client.budget(given))


def test_a_float_that_words_itself_is_read_by_its_value(client: Client) -> None:
    class Loud(float):
        def __repr__(self) -> str:
            return f"Loud({float(self)})"

    assert client.budget(Loud(0.5)).limit == Decimal("0.5")


@pytest.mark.parametrize(
    "wrong",
    [
        None,
        True,
        -1,
        -0.01,
        math.nan,
        math.inf,
        "",
        "a lot",
        "NaN",
        "-1",
        b"1",
        1j,
        [],
        Decimal("sNaN"),
        Decimal("inf"),
    ],
)
def test_a_limit_that_is_no_money_is_refused(client: Client, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^usd must be"):
        client.budget(wrong)


def test_sums_are_exact_whatever_the_callers_decimal_context(client: Client) -> None:
    with client.budget(usd="1e9") as spent, localcontext() as context:
        context.prec = 1
        for cost in ("1e-12", "123456789.123456789", *["0.1"] * 10):
            client.around().charge(Decimal(cost), CREATE, "neon")
    assert spent.usd == spent.by_vendor["neon"] == spent.by_capability[CREATE] == Decimal("123456790.123456789001")


def test_what_was_spent_is_told_by_capability_and_by_vendor(client: Client) -> None:
    with client.budget(usd=1) as spent:
        scopes = client.around()
        scopes.charge(Decimal("0.1"), "a", "neon")
        scopes.charge(Decimal("0.2"), "b", "neon")
        scopes.charge(Decimal("0.4"), "b", None)
    assert spent.by_capability == {"a": Decimal("0.1"), "b": Decimal("0.6")}
    assert spent.by_vendor == {"neon": Decimal("0.3"), "unknown": Decimal("0.4")}
    assert spent.usd == sum(spent.by_vendor.values()) == Decimal("0.7")
    assert repr(spent) == "<Budget: 0.7 of 1 USD spent>"


def test_what_is_told_can_neither_be_changed_nor_changes(client: Client) -> None:
    with client.budget(usd=1) as spent:
        before = spent.by_capability
        client.around().charge(Decimal(1), "a", None)
    assert before == {}
    with pytest.raises(TypeError):
        before["a"] = Decimal(0)  # type: ignore[index]
    with pytest.raises(AttributeError):
        spent.usd = Decimal(0)  # type: ignore[misc]


def test_what_was_spent_is_told_also_to_a_handler_that_comes_in_the_middle_of_a_charge(client: Client) -> None:
    told: list[object] = []
    spent = client.budget(usd=1)

    def charging() -> None:
        with spent._lock:
            told.extend((spent.usd, spent.by_capability, spent.by_vendor))

    thread = threading.Thread(target=charging, daemon=True)
    thread.start()
    thread.join(10)
    assert told == [0, {}, {}]


def test_a_budget_is_spent_when_the_sum_reaches_it(client: Client) -> None:
    with client.budget(usd="0.3") as spent:
        scopes = client.around()
        for _ in range(3):
            scopes.check(0.0)
            scopes.charge(Decimal("0.1"), CREATE, None)
        with pytest.raises(BudgetExceeded, match=r"0\.3 of 0\.3 USD"):
            scopes.check(0.0)
    assert spent.usd == spent.limit


def test_every_enclosing_budget_is_charged_and_looked_at(client: Client) -> None:
    with client.budget(usd="0.2") as outer:
        for _ in range(2):
            with client.budget(usd="0.15") as inner:
                client.around().check(0.0)
                client.around().charge(Decimal("0.1"), CREATE, None)
        assert (outer.usd, inner.usd) == (Decimal("0.2"), Decimal("0.1"))
        with client.budget(usd=100), pytest.raises(BudgetExceeded, match=r"0\.2 of 0\.2 USD"):
            client.around().check(0.0)


def test_a_budget_that_is_entered_again_goes_on_and_counts_once(client: Client) -> None:
    spent = client.budget(usd=1)
    with spent, spent:
        client.around().charge(Decimal("0.1"), CREATE, None)
    with spent:
        client.around().charge(Decimal("0.1"), CREATE, None)
    assert spent.usd == Decimal("0.2")


def test_threads_add_up(client: Client) -> None:
    with client.budget(usd=100) as spent:
        scopes = client.around()

        def spend() -> None:
            for _ in range(1000):
                scopes.charge(Decimal("0.001"), CREATE, "neon")
                assert spent.by_capability

        threads = [threading.Thread(target=spend) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert spent.usd == spent.by_vendor["neon"] == Decimal(8)


# --- deadlines -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0, -1, math.inf, math.nan, True, None, "5", timedelta(0)])
def test_a_deadline_that_is_no_length_of_time_is_refused(client: Client, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^seconds must be"):
        client.deadline(wrong)


@pytest.mark.parametrize("length", [100, 100.0, timedelta(seconds=100)])
def test_time_runs_from_entering_the_block(client: Client, length: Any) -> None:
    block = client.deadline(length)
    before = time.monotonic()
    with block:
        assert before + 100 <= client.around().until <= time.monotonic() + 100
        assert repr(block) == "<Deadline: 100 s>"


@pytest.mark.parametrize(("outer", "inner"), [(10, 100), (100, 10)])
def test_the_earliest_deadline_counts(client: Client, outer: float, inner: float) -> None:
    with client.deadline(outer), client.deadline(inner):
        assert client.around().until < time.monotonic() + 10.1


def test_a_call_after_the_deadline_is_refused(client: Client) -> None:
    with client.deadline(10):
        scopes = client.around()
    scopes.check(scopes.until - 0.001)
    with pytest.raises(TimeoutError, match="the deadline of the enclosing block has passed"):
        scopes.check(scopes.until)


# --- operations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["", None, 5, b"a", "two\nlines", "nul\0", "half \ud800"])
def test_a_name_that_is_no_text_is_refused(client: Client, wrong: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^name must be"):
        client.operation(wrong)


def test_a_key_is_the_same_in_every_process() -> None:
    # The rule, written down: whoever upgrades between two runs of a job must not pay twice.
    asked = b'["deploy-42","db.project.create",{"name":"shop","region":"us-east-1"}]'
    client = Client()
    with client.operation("deploy-42"):
        keys = [client.key(name="shop", region="us-east-1"), client.key(name="shop", region="us-east-1")]
    assert keys == [sha256(asked + b"0").hexdigest(), sha256(asked + b"1").hexdigest()]


def test_a_key_can_be_sent_and_tells_nothing(client: Client) -> None:
    with client.operation("naïve 🚀"):
        key = client.key(name="very-secret-name")
    assert check_key(CAPABILITIES[CREATE], key) == key
    assert len(key) == 64
    int(key, 16)


def test_a_run_that_begins_again_gets_the_same_keys(client: Client) -> None:
    def job() -> list[str]:
        with client.operation("deploy-42"):
            return [client.key(name=name) for name in ("a", "b", "a", "a")]

    first = job()
    assert len(set(first)) == 4
    assert job() == first


def test_an_operation_that_is_entered_again_counts_afresh(client: Client) -> None:
    block = client.operation("deploy-42")
    with block:
        keys = [client.key(), client.key()]
        with block:  # within itself it is "deploy-42/deploy-42"
            assert client.key() not in keys
        assert client.key() not in keys
    with block:
        assert [client.key(), client.key()] == keys


def test_order_does_not_matter(client: Client) -> None:
    with client.operation("a"):
        forwards = [client.key(name=name) for name in "xyz"]
    with client.operation("a"):
        backwards = [client.key(name=name) for name in "zyx"]
    assert backwards == forwards[::-1]


def test_names_of_nested_operations_are_joined(client: Client) -> None:
    with client.operation("outer"), client.operation("inner") as inner:
        assert (current_operation(), inner.name) == ("outer/inner", "inner")
        nested = client.key()
    with client.operation("outer/inner"):
        assert client.key() == nested
    with client.operation("inner"), client.operation("outer"):
        assert client.key() != nested


def test_the_innermost_operation_counts(client: Client) -> None:
    with client.operation("outer"):
        with client.operation("inner"):
            inside = client.key()
        outside = client.key()
        with client.operation("inner"):
            assert client.key() == inside
        assert client.key() != outside


def test_the_name_in_force(client: Client) -> None:
    other = Client()
    assert current_operation() is None
    with client.budget(1):
        assert current_operation() is None
        with client.operation("a"), other.operation("b"):
            assert current_operation() == current_operation(other) == "b"
            with client.operation("c"):
                assert current_operation() == current_operation(client) == "a/c"
                assert current_operation(other) == "b"
    assert current_operation() is None


@pytest.mark.parametrize(
    ("row", "arguments"),
    [
        ("db.project.get", {"id": "p"}),  # it reads
        ("account.activate", {}),  # it goes out without a key: whoever chose the same name would get its answer
    ],
)
def test_what_gets_no_derived_key(client: Client, row: str, arguments: dict[str, object]) -> None:
    with client.operation("a"):
        assert client.around().derive_key(CAPABILITIES[row], arguments) is None


EQUAL: list[tuple[str, Mapping[str, object], Mapping[str, object]]] = [
    (CREATE, {"name": "a", "region": "r"}, {"region": "r", "name": "a"}),
    (CREATE, {"name": "a", "region": None}, {"name": "a"}),
    ("flags.set", {"key": "k", "tags": {"x": "1", "y": "2"}}, {"key": "k", "tags": {"y": "2", "x": "1"}}),
    ("flags.set", {"key": "k", "rules": (FlagRule(attribute="a", operator="eq", value=1),)},
     {"key": "k", "rules": [{"attribute": "a", "operator": "eq", "value": 1, "serve": True}]}),
    ("account.topup", {"amount_usd": Decimal("5.5")}, {"amount_usd": 5.5}),
    ("cdn.distribution.create", {"origin": "o", "cache_ttl_seconds": timedelta(minutes=1)},
     {"origin": "o", "cache_ttl_seconds": 60}),
    ("flags.set", {"key": "k", "default_value": datetime(2026, 1, 1, tzinfo=UTC)},
     {"key": "k", "default_value": "2026-01-01T00:00:00Z"}),
]  # fmt: skip


@pytest.mark.parametrize(("row", "one", "same"), EQUAL)
def test_equal_requests_are_equal_calls(
    client: Client, row: str, one: Mapping[str, object], same: Mapping[str, object]
) -> None:
    with client.operation("a"):
        first = client.key(row, **one)
    with client.operation("a"):
        assert client.key(row, **same) == first


OTHER: list[tuple[str, Mapping[str, object], Mapping[str, object]]] = [
    (CREATE, {"name": "a"}, {"name": "b"}),
    (CREATE, {"name": "a"}, {"name": "a", "region": "r"}),
    ("flags.set", {"key": "k"}, {"key": "k", "default_value": None}),
    ("flags.set", {"key": "k", "default_value": 1}, {"key": "k", "default_value": True}),
    ("flags.set", {"key": "k", "default_value": 1}, {"key": "k", "default_value": "1"}),
    ("storage.object.delete", {"bucket": "a", "key": "b/c"}, {"bucket": "a/b", "key": "c"}),
    ("db.project.delete", {"id": "a"}, {"id": "b"}),
]


@pytest.mark.parametrize(("row", "one", "other"), OTHER)
def test_other_requests_are_other_calls(
    client: Client, row: str, one: Mapping[str, object], other: Mapping[str, object]
) -> None:
    with client.operation("a"):
        assert client.key(row, **one) != client.key(row, **other)


def test_equal_arguments_of_another_capability_are_another_call(client: Client) -> None:
    with client.operation("a"):
        assert client.key("db.project.delete", id="x") != client.key("db.branch.delete", id="x")


def test_a_wrong_argument_is_named(client: Client) -> None:
    with client.operation("a"), pytest.raises(InvalidArgument, match="name must be a string"):
        client.key(name=5)


def test_numbers_are_the_lowest_that_are_free() -> None:
    ordinals = Ordinals()
    assert [ordinals.take(b"a") for _ in range(4)] == [0, 1, 2, 3]
    assert ordinals.take(b"b") == 0
    ordinals.release(b"a", 2)
    ordinals.release(b"a", 0)
    assert [ordinals.take(b"a") for _ in range(3)] == [0, 2, 4]


def test_threads_get_distinct_numbers() -> None:
    ordinals, taken = Ordinals(), []
    threads = [
        threading.Thread(target=lambda: taken.extend([ordinals.take(b"a") for _ in range(500)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == list(range(4000))


# --- the flow --------------------------------------------------------------------------------------------------------


class Task:
    """As much of a task as a call that nobody cancels needs."""

    def cancelling(self) -> int:
        return 0


def flow(scopes: Scopes) -> Any:
    arguments = {"name": "shop"}
    forever = float("inf")
    reader: ResponseReader[Any] = ResponseReader(lambda row, envelope: envelope.data, lambda *_: None)
    call = Call(CAPABILITIES[CREATE], arguments, reader, RetryPolicy(), 0.0, forever, "key", scopes=scopes)
    state = CallState(call, Counters(), Task())  # type: ignore[arg-type]
    return run(call, call.request(0), state.note_response, RouteMemory())


def answer(status: int = 200, **metadata: object) -> Response:
    error = None if status == 200 else {"code": "X"}
    return Response(status, {}, json.dumps({"ok": not error, "error": error, "metadata": metadata}).encode())


@pytest.mark.parametrize("vendor", [{"vendor": "neon"}, {}, {"vendor": 5}, {"vendor": ""}])
def test_an_answer_is_charged_to_its_capability_and_vendor(client: Client, vendor: dict[str, object]) -> None:
    with client.budget(usd=1) as spent:
        steps = flow(client.around())
        next(steps)
        with pytest.raises(StopIteration):
            steps.send(answer(cost_usd=0.001, **vendor))
    name = "neon" if vendor.get("vendor") == "neon" else "unknown"
    assert (spent.by_capability, spent.by_vendor) == ({CREATE: Decimal("0.001")}, {name: Decimal("0.001")})


def test_a_refusal_that_costs_is_charged_and_so_is_each_attempt(client: Client) -> None:
    with client.budget(usd=1) as spent:
        steps = flow(client.around())
        next(steps)
        assert isinstance(steps.send(answer(500, cost_usd=0.25)), Pause)
        assert isinstance(steps.send(True), Request)
        with pytest.raises(StopIteration):
            steps.send(answer(cost_usd=0.5))
    assert spent.usd == Decimal("0.75")


@pytest.mark.parametrize("forbidden", [BudgetExceeded("spent"), TimeoutError("late")])
def test_what_a_block_forbids_was_not_sent(client: Client, forbidden: InfraiError) -> None:
    with client.budget(usd=1):
        steps = flow(client.around())
    next(steps)
    with pytest.raises(type(forbidden)) as caught:
        steps.throw(forbidden)
    assert caught.value is forbidden
    assert (forbidden.outcome, forbidden.capability, forbidden.attempts) == ("not_sent", CREATE, ())
    assert forbidden.idempotency_key == "key"


@pytest.mark.parametrize("forbidden", [BudgetExceeded("spent"), TimeoutError("late")])
@pytest.mark.parametrize(
    ("failure", "kind", "outcome"),
    [
        (NoResponse(TransportError("reset"), sent=True), TransportError, "maybe_applied"),
        (answer(500), ServerError, "maybe_applied"),
    ],
)
def test_what_is_not_sent_again_raises_what_failed_before(
    client: Client, forbidden: InfraiError, failure: Result, kind: type[InfraiError], outcome: str
) -> None:
    with client.budget(usd=1):
        steps = flow(client.around())
    next(steps)
    steps.send(failure)
    steps.send(True)
    with pytest.raises(kind) as caught:
        steps.throw(forbidden)
    assert (type(caught.value), caught.value.outcome, len(caught.value.attempts)) == (kind, outcome, 1)
    assert caught.value.__context__ is forbidden


def test_blocks_work_in_an_exit_stack(client: Client) -> None:
    with ExitStack() as stack:
        blocks: list[Any] = [stack.enter_context(client.budget(n)) for n in range(3)]
        assert isinstance(blocks[0], Budget)
        assert client.around().budgets == tuple(blocks)
    assert surrounding(client) is None
