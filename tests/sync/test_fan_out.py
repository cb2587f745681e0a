"""Blocking fan-outs and inventories: the items of the asynchronous ones, with few ways into the loop."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer, refuse
from support.patience import LONG, until
from sync.children import count_thread_calls

from infrai_async import (
    BadRequestError,
    BudgetExceeded,
    ClientClosedError,
    ConfigurationError,
    Infrai,
    InfraiError,
    InvalidArgument,
    TimeoutError,
)
from infrai_async.sync import FanOut


def account(projects: int, each: int, *, delay: Callable[[Seen], float] = lambda _: 0.0) -> Callable[[Seen], Reply]:
    def reply(seen: Seen) -> Reply:
        asked = seen.query
        of, start = asked.get("project_id"), int(asked.get("cursor", "0"))
        total = projects if of is None else each
        stop = min(start + 10, total)
        kept = {"project_id": of, "connection_uri": "postgresql://h/d", "created_at": "2026-01-01T00:00:00Z"}
        items = [
            {**SMALL, "id": f"p{n}"} if of is None else {**kept, "id": f"{of}-{n}", "branch_name": "b"}
            for n in range(start, stop)
        ]
        return answer({"items": items, "next_cursor": str(stop) if stop < total else None}, delay=delay(seen))

    return reply


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle(account(25, 13)) as oracle:
        yield oracle


@pytest.fixture
def client(oracle: Oracle) -> Iterator[Infrai]:
    with Infrai("k", base_url=oracle.url) as client:
        yield client


def pairs_of(client: Infrai, **options: object) -> FanOut[object, object]:
    return client.fan_out(  # type: ignore[return-value]
        client.db.project.list(),
        lambda project: client.db.branch.list(project_id=project.id),
        **options,  # type: ignore[arg-type]
    )


def ids(pairs: object) -> list[tuple[str, str]]:
    return [(parent.id, child.id) for parent, child in pairs]  # type: ignore[attr-defined]


EVERY = {(f"p{p}", f"p{p}-{b}") for p in range(25) for b in range(13)}


@pytest.mark.parametrize("concurrency", [1, 32])
def test_every_child_comes_once(client: Infrai, concurrency: int) -> None:
    got = ids(pairs_of(client, concurrency=concurrency))
    assert len(got) == len(EVERY)
    assert set(got) == EVERY


def test_it_crosses_into_the_loop_at_most_once_a_page(client: Infrai, monkeypatch: pytest.MonkeyPatch) -> None:
    crossings = count_thread_calls(monkeypatch)
    assert len(ids(pairs_of(client))) == 325
    assert len(crossings) <= 51  # two pages each of 25 parents, and the end
    crossings.clear()
    rows = 0
    for _ in client.fan_out(range(1_000), lambda _: range(100)):
        rows += 1
    assert rows == 100_000
    assert len(crossings) <= 120  # all that is ready


def test_next_and_loops_go_on_from_where_it_stands_and_plain_iterables_and_others_nest(client: Infrai) -> None:
    pairs = pairs_of(client)
    first = next(pairs)
    assert len(ids([first, *pairs])) == 325
    assert next(pairs, None) is None
    nested = client.fan_out(pairs_of(client), lambda pair: [pair[1], pair[1]])
    assert len(list(nested)) == 650


def test_errors_are_raised_or_handed_over(oracle: Oracle, client: Infrai) -> None:
    oracle.reply = lambda seen: refuse(400) if seen.query.get("project_id") == "p7" else account(25, 13)(seen)
    with pytest.raises(BadRequestError):
        ids(pairs_of(client))
    told: list[str] = []
    got = ids(pairs_of(client, on_error=lambda project, error: told.append(project.id)))
    assert told == ["p7"]
    assert set(got) == {pair for pair in EVERY if pair[0] != "p7"}


def test_blocks_around_it_hold_for_all_its_calls(oracle: Oracle, client: Infrai) -> None:
    heard = len(oracle.seen)
    with client.budget(usd="0.01") as spent, pytest.raises(BudgetExceeded):
        ids(pairs_of(client, concurrency=1))
    assert spent.usd >= spent.limit
    assert len(oracle.seen) - heard <= 12  # one listing each of children and parents may have been in flight
    oracle.reply = account(25, 5, delay=slow)
    with client.deadline(0.3), pytest.raises(TimeoutError):
        ids(pairs_of(client))


def test_a_call_of_the_client_inside_children_is_refused_rather_than_stuck(client: Infrai) -> None:
    with pytest.raises(ConfigurationError, match="own event loop"):
        list(client.fan_out(["p1"], lambda id: client.db.branch.list(project_id=id).collect()))


def tasks_of(client: Infrai) -> set[str]:
    async def names() -> set[str]:
        mine = asyncio.current_task()
        return {repr(task) for task in asyncio.all_tasks() if task is not mine and "_stay_open" not in repr(task)}

    return client._runner.run(names)


def until_idle(client: Infrai) -> None:
    until(lambda: not tasks_of(client) and not client.stats.in_flight)


def slow(seen: Seen) -> float:
    return LONG if seen.query.get("project_id", "p0") != "p0" else 0.0


@pytest.mark.parametrize("how", ["break", "close", "with", "raise"])
def test_left_early_nothing_goes_on(oracle: Oracle, client: Infrai, how: str) -> None:
    oracle.reply = account(25, 5, delay=slow)
    pairs = pairs_of(client)
    if how == "with":
        with pairs:
            next(pairs)
    elif how == "raise":
        with pytest.raises(ZeroDivisionError):
            for _ in pairs:
                raise ZeroDivisionError
    else:
        for _ in pairs:
            break
        if how == "close":
            pairs.close()
            assert list(pairs) == []
    del pairs
    gc.collect()
    until_idle(client)


def test_ctrl_c_ends_it_and_the_client_stays_usable(oracle: Oracle, client: Infrai) -> None:
    oracle.reply = account(25, 5, delay=lambda seen: LONG if "project_id" in seen.target else 0.0)
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        ids(pairs_of(client))
    timer.join()
    until_idle(client)
    oracle.reply = account(25, 13)
    assert set(ids(pairs_of(client))) == EVERY


def test_closing_the_client_ends_it(oracle: Oracle) -> None:
    oracle.reply = account(25, 5, delay=slow)
    client = Infrai("k", base_url=oracle.url)
    pairs = pairs_of(client)
    next(pairs)
    client.close(grace=0)
    with pytest.raises((InfraiError, RuntimeError)):
        list(pairs)
    with pytest.raises(ClientClosedError):
        list(pairs_of(client))


def test_progress_is_reported_in_the_callers_thread(client: Infrai) -> None:
    seen: list[tuple[int, int | None, int]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total, threading.get_ident()))

    ids(pairs_of(client, progress=progress))
    assert seen[-1] == (25, 25, threading.get_ident())
    assert {ident for _, _, ident in seen} == {threading.get_ident()}
    seen.clear()
    list(client.db.inventory(progress=progress))
    assert seen[-1] == (25, 25, threading.get_ident())


def test_progress_moves_on_also_where_parents_have_no_children(oracle: Oracle, client: Infrai) -> None:
    oracle.reply = account(25, 0, delay=lambda seen: 0.01)
    seen: list[int] = []
    assert ids(pairs_of(client, concurrency=4, progress=lambda done, _: seen.append(done))) == []
    assert seen[-1] == 25
    assert len(set(seen)) >= 5


def test_true_draws_a_bar(client: Infrai, capfd: pytest.CaptureFixture[str]) -> None:
    ids(pairs_of(client, progress=True))
    assert "25/25" in capfd.readouterr().err


def test_an_inventory_goes_on_from_its_checkpoint(client: Infrai, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    first: list[str] = []
    for entry in client.db.inventory(checkpoint=path, concurrency=4):
        assert (len(entry.branches), len(entry.snapshots)) == (13, 13)
        first.append(entry.project.id)
        if len(first) == 12:
            break
    second = [entry.project.id for entry in client.db.inventory(checkpoint=path)]
    assert set(first) | set(second) == {f"p{n}" for n in range(25)}
    assert set(first) & set(second) == {first[-1]}
    assert not path.exists()
    until_idle(client)


@pytest.mark.parametrize("prefetch", [1, 3])
def test_blocking_cursors_fetch_ahead_too(oracle: Oracle, client: Infrai, prefetch: int) -> None:
    cursor = client.db.project.list(prefetch=prefetch)
    assert next(cursor).id == "p0"
    until(lambda: len(oracle.seen) >= min(3, 1 + prefetch))
    assert cursor.next_cursor is None
    assert [project.id for project in cursor] == [f"p{n}" for n in range(1, 25)]
    assert len(oracle.seen) == 3
    until_idle(client)


def test_a_prefetching_cursor_of_a_closed_client_is_refused(oracle: Oracle) -> None:
    client = Infrai("k", base_url=oracle.url)
    client.close()
    with pytest.raises(ClientClosedError):
        list(client.db.project.list(prefetch=2))


@pytest.mark.parametrize(
    ("name", "value"), [("parents", 5), ("children", 5), ("concurrency", 0), ("on_error", 5), ("progress", 5)]
)
def test_wrong_arguments_are_refused(name: str, value: object) -> None:
    with Infrai("k", base_url="http://127.0.0.1:9") as client, pytest.raises(InvalidArgument, match=name):
        client.fan_out(**{"parents": [1], "children": range, name: value})  # type: ignore[arg-type]
