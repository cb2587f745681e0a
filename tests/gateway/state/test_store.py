"""The writer thread: groups, savepoints, durability."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import RequestRefused
from infrai_async.local.state.store import Store
from infrai_async.local.state.tables import ACCOUNTS, DATABASES, OPERATIONS

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "state.db")
    await store.open()
    yield store
    await store.aclose()


def adding(name: str, fail: bool = False) -> Any:
    def job(connection: Connection) -> str:
        connection.execute(DATABASES.insert().values(name=name, pending_delete=False))
        if fail:
            raise KeyError(name)
        return name

    return job


def names(connection: Connection) -> list[str]:
    return sorted(connection.scalars(sa.select(DATABASES.c.name)))


async def test_a_job_that_fails_is_undone_and_spares_its_neighbours(store: Store) -> None:
    jobs = [store.run(adding(f"n{number}", fail=number % 3 == 0)) for number in range(9)]
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert [isinstance(result, KeyError) for result in results] == [number % 3 == 0 for number in range(9)]
    assert await store.run(names) == ["n1", "n2", "n4", "n5", "n7", "n8"]


async def test_an_acknowledged_job_is_in_the_file(store: Store, tmp_path: Path) -> None:
    await store.run(adding("a"))
    with closing(sqlite3.connect(tmp_path / "state.db")) as other:
        assert other.execute("select name from databases").fetchall() == [("a",)]
        assert other.execute("pragma journal_mode").fetchone() == ("wal",)


async def test_every_commit_is_synchronised(store: Store) -> None:
    assert await store.run(lambda connection: connection.exec_driver_sql("pragma synchronous").scalar()) == 2


async def test_jobs_that_wait_share_a_commit(store: Store) -> None:
    commits: list[int] = []

    def watch(connection: Connection) -> None:
        sa.event.listen(connection.engine, "commit", lambda _: commits.append(1))

    await store.run(watch)
    commits.clear()
    all_wait = threading.Event()
    first = asyncio.ensure_future(store.run(lambda _: all_wait.wait(10)))
    others = [asyncio.ensure_future(store.run(adding(f"n{number}"))) for number in range(100)]
    await asyncio.sleep(0)
    all_wait.set()
    assert await first
    await asyncio.gather(*others)
    assert len(commits) <= 2  # the first one's own, unless the others came in time to share it
    assert len(await store.run(names)) == 100


async def test_a_commit_that_cannot_be_had_fails_all_who_shared_it_and_the_next_succeeds(
    store: Store, tmp_path: Path
) -> None:
    await store.run(lambda connection: connection.exec_driver_sql("pragma busy_timeout = 50").close())
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        results = await asyncio.gather(store.run(adding("a")), store.run(adding("b")), return_exceptions=True)
        assert all(isinstance(result, sa.exc.OperationalError) for result in results)
        other.execute("rollback")
    assert await store.run(adding("c")) == "c"
    assert await store.run(names) == ["c"]


async def test_a_cancelled_caller_leaves_the_writer_at_work(store: Store) -> None:
    task = asyncio.create_task(store.run(adding("a")))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    assert await store.run(adding("b")) == "b"
    assert await store.run(names) == ["a", "b"]


async def test_what_an_older_version_did_not_know_is_added(store: Store, tmp_path: Path) -> None:
    await store.aclose()
    with closing(sqlite3.connect(tmp_path / "state.db")) as older, older:
        older.execute("alter table operations drop column owner")
        older.execute("drop table gateways")
        older.execute("insert into databases values ('kept', 0)")
    newer = Store(tmp_path / "state.db")
    await newer.open()
    assert await newer.run(lambda connection: connection.scalars(sa.select(OPERATIONS.c.owner)).all()) == []
    assert await newer.run(names) == ["kept"]
    await newer.aclose()


async def test_closing_finishes_what_was_asked_for(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db")
    await store.open()
    jobs = [asyncio.ensure_future(store.run(adding(f"n{number}"))) for number in range(5)]
    await asyncio.sleep(0)
    await store.aclose()
    assert [await job for job in jobs] == [f"n{number}" for number in range(5)]
    await store.aclose()


async def test_a_closed_store_refuses_instead_of_never_answering(store: Store) -> None:
    await store.aclose()
    with pytest.raises(RequestRefused, match="closed"):
        await asyncio.wait_for(store.run(names), 25)


# --- reading beside the writer ---------------------------------------------------------------------------------------


async def test_a_read_does_not_wait_for_the_writer(store: Store) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        adding("late")(connection)
        entered.set()
        leave.wait(60)

    await store.run(adding("a"))
    holding = asyncio.create_task(store.run(hold))
    await asyncio.to_thread(entered.wait, 60)
    assert await asyncio.wait_for(store.read(names), 60) == ["a"]  # and nothing of what is not acknowledged
    leave.set()
    await holding
    assert await store.read(names) == ["a", "late"]


async def test_a_read_sees_all_that_was_acknowledged_before_it(store: Store) -> None:
    async def write_and_read(name: str) -> bool:
        await store.run(adding(name))
        return name in await store.read(names)

    assert all(await asyncio.gather(*(write_and_read(f"n{number}") for number in range(200))))


async def test_a_read_changes_nothing(store: Store) -> None:
    reader = store._reader
    assert reader is not None
    with pytest.raises(sa.exc.OperationalError, match=r"readonly|read-only"):
        adding("x")(reader)
    assert await store.read(names) == []


async def test_a_read_of_a_closed_store_is_refused(store: Store) -> None:
    await store.aclose()
    for act in (lambda: store.read(names), lambda: store.charge("a", 1)):
        with pytest.raises(RequestRefused, match="closed"):
            await act()


async def test_charges_of_a_batch_are_exact_to_the_last_cent(store: Store) -> None:
    def accounts(connection: Connection) -> None:
        for name, nano in (("rich", 1000), ("poor", 25)):
            values = {"id": name, "project_id": "p", "key_hash": name, "nano": nano, "created_at": "now"}
            connection.execute(ACCOUNTS.insert().values(values))

    def left(connection: Connection) -> dict[str, int]:
        return {row.id: row.nano for row in connection.execute(sa.select(ACCOUNTS.c.id, ACCOUNTS.c.nano))}

    await store.run(accounts)
    poor, rich = (asyncio.gather(*(store.charge(name, 10) for _ in range(50))) for name in ("poor", "rich"))
    assert (sum(await poor), sum(await rich)) == (2, 50)
    assert await store.read(left) == {"rich": 500, "poor": 5}
    assert await store.charge("nobody", 1) is False
