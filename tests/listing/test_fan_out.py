"""Children of many parents at once: each exactly once, bounded, and nothing left behind however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse

from infrai_async import (
    AsyncInfrai,
    BadRequestError,
    Branch,
    ConfigurationError,
    FanOut,
    InfraiError,
    InvalidArgument,
    Project,
    RetryPolicy,
    fan_out,
)

pytestmark = pytest.mark.anyio


def account(
    projects: int, branches: int, *, size: int = 10, delay: Callable[[Seen], float] = lambda _: 0.0
) -> Callable[[Seen], Reply]:
    """Serve projects, and as many branches of each, in pages."""

    def reply(seen: Seen) -> Reply:
        asked = seen.query
        start = int(asked.get("cursor", "0"))
        of = asked.get("project_id")
        total = projects if of is None else branches
        stop = min(start + size, total)
        items = [
            {**SMALL, "id": f"p{n}"}
            if of is None
            else {"id": f"{of}-b{n}", "branch_name": f"b{n}", "project_id": of, "connection_uri": "postgresql://h/d"}
            for n in range(start, stop)
        ]
        return answer({"items": items, "next_cursor": str(stop) if stop < total else None}, delay=delay(seen))

    return reply


def every(projects: int, branches: int) -> set[tuple[str, str]]:
    return {(f"p{p}", f"p{p}-b{b}") for p in range(projects) for b in range(branches)}


def pairs_of(client: AsyncInfrai, **options: object) -> FanOut[Project, Branch]:
    return fan_out(
        client.db.project.list(),
        lambda project: client.db.branch.list(project_id=project.id),
        **options,  # type: ignore[arg-type]
    )


async def counting(upto: int, *, made: list[int] | None = None) -> AsyncIterator[int]:
    for number in range(upto):
        await asyncio.sleep(0)
        if made is not None:
            made.append(number)
        yield number


async def none_left(before: set[asyncio.Task[object]]) -> None:
    async with asyncio.timeout(25):
        while not asyncio.all_tasks() <= before:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("concurrency", [1, 3, 64])
@pytest.mark.parametrize(("projects", "branches"), [(0, 5), (5, 0), (1, 1), (25, 23)])
async def test_every_child_comes_once_and_those_of_a_parent_in_order(
    concurrency: int, projects: int, branches: int
) -> None:
    with Oracle(account(projects, branches)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            got = [(project.id, branch.id) async for project, branch in pairs_of(client, concurrency=concurrency)]
    assert len(got) == len(set(got))
    assert set(got) == every(projects, branches)
    for n in range(projects):
        assert [child for parent, child in got if parent == f"p{n}"] == [f"p{n}-b{b}" for b in range(branches)]


@pytest.mark.parametrize("concurrency", [4, 64])
async def test_parents_are_listed_while_children_are_and_no_more_than_so_many_at_once(concurrency: int) -> None:
    listed: list[str] = []

    def delay(seen: Seen) -> float:
        listed.append(seen.query.get("project_id", "parents"))
        return 0.02

    with Oracle(account(40, 5, delay=delay)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            assert len([pair async for pair in pairs_of(client, concurrency=concurrency)]) == 200
    assert oracle.most_at_once <= concurrency + 1  # those of children, one of parents
    last_parents = len(listed) - 1 - listed[::-1].index("parents")
    assert listed.index("p0") < last_parents


async def test_nothing_happens_until_it_is_read() -> None:
    with Oracle(account(3, 3)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            before = asyncio.all_tasks()
            pairs_of(client)
            await asyncio.sleep(0.05)
            assert asyncio.all_tasks() <= before
    assert oracle.seen == []


async def test_results_come_as_they_come() -> None:
    def delay(seen: Seen) -> float:
        return 0.5 if seen.query.get("project_id") == "p0" else 0.0

    with Oracle(account(3, 2, delay=delay)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            got = [project.id async for project, _ in pairs_of(client)]
    assert got[-2:] == ["p0", "p0"]


@pytest.mark.parametrize(
    "parents",
    [lambda: [0, 1, 2], lambda: iter(range(3)), lambda: counting(3), lambda: fan_out([0], lambda _: range(3))],
)
@pytest.mark.parametrize(
    "children", [lambda n: range(n), lambda n: counting(n), lambda n: fan_out(range(n), lambda _: "x")]
)
async def test_any_iterable_will_do(parents: Callable[[], object], children: Callable[[int], object]) -> None:
    def of(parent: object) -> object:
        return children(parent[1] if isinstance(parent, tuple) else parent)  # type: ignore[arg-type]

    got = [pair async for pair in fan_out(parents(), of)]  # type: ignore[var-annotated, arg-type]
    assert len(got) == 3


async def test_fan_outs_nest_both_ways() -> None:
    with Oracle(account(4, 13)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            below = fan_out(pairs_of(client), lambda pair: [pair[1].id + "-x", pair[1].id + "-y"])
            assert {child async for _, child in below} == {f"{b}-{c}" for _, b in every(4, 13) for c in "xy"}
            above = fan_out(["a", "b"], lambda _: pairs_of(client, concurrency=2))
            got = [(name, project.id, branch.id) async for name, (project, branch) in above]
    assert len(got) == 2 * 4 * 13
    assert set(got) == {(name, *pair) for name in "ab" for pair in every(4, 13)}


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="needs Python 3.12")
async def test_it_works_in_a_loop_whose_tasks_begin_at_once() -> None:
    at_once: list[int] = []

    async def children(number: int) -> AsyncIterator[int]:
        at_once.append(number)
        most.append(len(at_once))
        await asyncio.sleep(0.001)
        at_once.remove(number)
        for child in range(3):
            yield child

    most: list[int] = []
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - no attribute in Python 3.11
    try:
        assert len([pair async for pair in fan_out(range(100), children, concurrency=4)]) == 300
        assert len([pair async for pair in fan_out(range(2_000), lambda _: (), concurrency=4)]) == 0
        nested = fan_out(fan_out(range(50), range), lambda pair: fan_out(range(3), range), concurrency=4)
        assert len([pair async for pair in nested]) == 50 * 49 // 2 * 3
    finally:
        loop.set_task_factory(before)
    assert max(most) <= 4


async def test_the_first_error_ends_the_rest_and_is_raised() -> None:
    def reply(seen: Seen) -> Reply:
        of = seen.query.get("project_id")
        return refuse(400) if of == "p1" else account(10, 5, delay=lambda _: 30.0 if of else 0.0)(seen)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            before = asyncio.all_tasks()
            pairs = pairs_of(client)
            with pytest.raises(BadRequestError, match=r"db\.branch\.list"):
                await anext(pairs)
            assert asyncio.all_tasks() <= before
            assert client.stats.in_flight == 0
            with pytest.raises(RuntimeError, match="by an exception or a cancellation"):
                await anext(pairs)


@pytest.mark.parametrize("is_async", [False, True])
async def test_on_error_is_told_and_the_rest_goes_on(is_async: bool) -> None:
    told: list[tuple[str, str]] = []

    def plain(project: Project, error: Exception) -> None:
        told.append((project.id, type(error).__name__))

    async def slow(project: Project, error: Exception) -> None:
        await asyncio.sleep(0.01)
        plain(project, error)

    def reply(seen: Seen) -> Reply:
        return refuse(400) if seen.query.get("project_id") in ("p1", "p13") else account(20, 12)(seen)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            got = [(p.id, b.id) async for p, b in pairs_of(client, on_error=slow if is_async else plain)]
    assert sorted(told) == [("p1", "BadRequestError"), ("p13", "BadRequestError")]
    assert set(got) == {pair for pair in every(20, 12) if pair[0] not in ("p1", "p13")}
    assert len(got) == 18 * 12


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
async def test_what_came_before_an_error_is_not_lost(kind: str) -> None:
    def plain(upto: int) -> Iterator[int]:
        yield from range(upto)
        raise KeyError(upto)

    async def asynchronous(upto: int) -> AsyncIterator[int]:
        for number in plain(upto):
            yield number

    told: list[tuple[int, str]] = []
    children = plain if kind == "plain" else asynchronous
    pairs = fan_out([0, 5, 250], children, on_error=lambda upto, error: told.append((upto, repr(error))))
    got = [pair async for pair in pairs]
    assert sorted(got) == [(upto, number) for upto in (5, 250) for number in range(upto)]
    assert sorted(told) == [(0, "KeyError(0)"), (5, "KeyError(5)"), (250, "KeyError(250)")]


async def test_an_error_of_the_parents_is_always_raised_and_so_is_one_of_on_error() -> None:
    def reply(seen: Seen) -> Reply:
        return refuse(400) if seen.query.get("cursor") == "10" else account(25, 1)(seen)

    with Oracle(reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            with pytest.raises(BadRequestError, match=r"db\.project\.list"):
                [pair async for pair in pairs_of(client, on_error=lambda *_: None)]

    def broken(number: int) -> Iterator[int]:
        raise ZeroDivisionError

    with pytest.raises(KeyError):
        [pair async for pair in fan_out([1], broken, on_error=lambda *_: {}["a"])]


async def test_children_that_are_nothing_to_list_say_so() -> None:
    async def made(number: int) -> list[int]:
        return [number]

    for children in (made, lambda number: number):
        with pytest.raises(InvalidArgument, match="children must return a cursor or another iterable, not"):
            [pair async for pair in fan_out([1], children)]  # type: ignore[arg-type, var-annotated]


def slow_children(seen: Seen) -> float:
    return 30.0 if seen.query.get("project_id", "p0") != "p0" else 0.0


@pytest.mark.parametrize("how", ["break", "kept", "raise", "aclose", "with", "cancel", "cancel elsewhere", "client"])
async def test_however_it_ends_no_task_and_no_call_is_left(how: str) -> None:
    kept = []

    async def read(client: AsyncInfrai) -> None:
        pairs = pairs_of(client)
        kept.append(pairs)
        async for _ in pairs:
            match how:
                case "break":
                    kept.clear()
                    break
                case "kept":
                    return
                case "raise":
                    kept.clear()
                    raise ZeroDivisionError
                case "aclose":
                    await pairs.aclose()
                    assert [pair async for pair in pairs] == []
                case "with":
                    async with pairs:
                        break
                case "cancel elsewhere":
                    await asyncio.sleep(30)
                case "client":
                    await client.aclose(grace=0)

    with Oracle(account(20, 5, delay=slow_children)) as oracle:
        before = asyncio.all_tasks()
        client = AsyncInfrai("k", base_url=oracle.url, retry=RetryPolicy.none())
        task = asyncio.create_task(read(client))
        await asyncio.wait([task], timeout=0.5)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ZeroDivisionError, InfraiError):
            await task
        del task
        if how == "kept":  # calls in flight go on, for somebody may read on; closing the client ends them
            await client.aclose(grace=0)
        gc.collect()
        await none_left(before)
        assert client.stats.in_flight == 0
        await client.aclose()


async def test_generators_are_closed_where_they_stand_before_it_has_ended() -> None:
    open_now: list[str] = []

    async def generate(name: str, upto: int = 10**9) -> AsyncIterator[int]:
        open_now.append(name)
        try:
            async for number in counting(upto):
                yield number
        finally:
            open_now.remove(name)

    def children(number: int) -> AsyncIterator[int] | FanOut[int, int]:
        return generate("child") if number % 2 else fan_out(generate("parent"), lambda _: generate("grandchild", 5))

    async with fan_out(generate("parents"), children, concurrency=4) as pairs:
        for _ in range(2_500):
            await anext(pairs)
        assert {"parents", "child", "parent"} <= set(open_now)
    assert open_now == []


def test_the_end_of_the_loop_ends_it() -> None:
    kept = []

    async def main() -> None:
        pairs = pairs_of(AsyncInfrai("k", base_url=oracle.url))
        kept.append(pairs)
        await anext(pairs)

    with Oracle(account(20, 5, delay=slow_children)) as oracle:
        asyncio.run(main())

        async def later() -> None:
            with pytest.raises(RuntimeError):
                for _ in range(20):
                    await anext(kept[0])

        asyncio.run(later())
        kept.clear()
        gc.collect()


async def test_two_readers_are_told_apart() -> None:
    with Oracle(account(1, 1, delay=lambda _: 0.2)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            pairs = pairs_of(client)
            results = await asyncio.gather(anext(pairs), anext(pairs), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["tuple", "RuntimeError"]


async def test_short_lived_tasks_may_take_turns() -> None:
    with Oracle(account(3, 12)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            pairs = pairs_of(client)
            got = []
            for _ in range(36):
                project, branch = await asyncio.wait_for(asyncio.create_task(_next(pairs)), 25)
                got.append((project.id, branch.id))
            assert [pair async for pair in pairs] == []
    assert set(got) == every(3, 12)


async def _next(pairs: FanOut[Project, Branch]) -> tuple[Project, Branch]:
    return await anext(pairs)


async def test_a_slow_reader_holds_everything_back_and_an_idle_one_leaves_nothing_running() -> None:
    made: list[int] = []
    before = asyncio.all_tasks()
    pairs = fan_out(counting(10**9), lambda _: counting(100, made=made), concurrency=8)
    for _ in range(10):
        await anext(pairs)
    await none_left(before)
    assert len(made) < 3_000
    for _ in range(5_000):
        await anext(pairs)
    await none_left(before)
    assert 5_000 < len(made) < 9_000
    await pairs.aclose()


async def test_memory_stays_bounded_however_many_items_come() -> None:
    class Pages:
        """Items by the hundred, made when they are asked for."""

        def __init__(self, parent: int) -> None:
            self.parent = parent

        def __iter__(self) -> Iterator[str]:
            return (f"{self.parent}-{n}" for n in range(1_000))

    pairs = fan_out(range(300), Pages, concurrency=64)
    count = 0
    tracemalloc.start()
    try:
        async for _ in pairs:
            count += 1
            if count % 1_000 == 0:
                await asyncio.sleep(0.001)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 300_000
    assert peak < 8 * 2**20


async def test_progress_says_how_many_parents_are_done_and_the_total_once_it_is_known() -> None:
    seen: list[tuple[int, int | None]] = []
    with Oracle(account(25, 3)) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            pairs = pairs_of(client, progress=lambda done, total: seen.append((done, total)))
            assert len([pair async for pair in pairs]) == 75
    assert seen[-1] == (25, 25)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("nested", [False, True])
async def test_progress_moves_on_also_where_parents_have_no_children(nested: bool) -> None:
    seen: list[tuple[int, int | None]] = []

    async def none(number: int) -> AsyncIterator[int]:
        await asyncio.sleep(0.01)
        for never in ():
            yield never

    def children(number: int) -> FanOut[int, int] | AsyncIterator[int]:
        return fan_out([1, 2, 3], none) if nested else none(number)

    pairs = fan_out(range(20), children, concurrency=4, progress=lambda done, total: seen.append((done, total)))
    assert [pair async for pair in pairs] == []
    assert seen[-1] == (20, 20)
    assert len({done for done, _ in seen}) >= 5


async def test_progress_needs_tqdm_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tqdm.auto", None)
    with pytest.raises(ConfigurationError, match="tqdm"):
        await anext(fan_out([1], range, progress=True))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("parents", {"parents": 5}),
        ("children", {"children": [1]}),
        ("concurrency", {"concurrency": 0}),
        ("concurrency", {"concurrency": True}),
        ("concurrency", {"concurrency": "5"}),
        ("on_error", {"on_error": "raise"}),
        ("progress", {"progress": "bar"}),
    ],
)
async def test_wrong_arguments_are_refused(name: str, arguments: dict[str, object]) -> None:
    with pytest.raises(InvalidArgument, match=name):
        fan_out(**{"parents": [1], "children": range, **arguments})  # type: ignore[arg-type]
