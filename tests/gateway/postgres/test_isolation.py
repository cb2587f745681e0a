"""Who gets into which database, and what of it others see: by both drivers, through the addresses of the API."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
import pytest

pytestmark = pytest.mark.anyio


async def by_asyncpg(uri: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(uri, timeout=10)
    try:
        return [row[0] for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def by_psycopg(uri: str, sql: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(uri, autocommit=True, connect_timeout=10) as connection:
        cursor = await connection.execute(sql)
        return [row[0] for row in await cursor.fetchall()] if cursor.description else []


drivers = pytest.mark.parametrize("run", [by_asyncpg, by_psycopg])
Run = Callable[[str, str], Any]
REFUSED = (asyncpg.PostgresError, psycopg.OperationalError)


def database(resource: Any) -> str:
    return str(resource["connection_uri"].rpartition("/")[2])


async def branch_of(api: Any, project: Any, name: str = "b") -> Any:
    return (await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": name})).data


@drivers
async def test_what_is_written_after_a_branch_was_made_stays_where_it_was_written(api: Any, run: Run) -> None:
    project = await api.project()
    await run(project["connection_uri"], "create table t as select 1 as x")
    branch = await branch_of(api, project)
    await run(branch["connection_uri"], "insert into t values (2)")
    await run(project["connection_uri"], "insert into t values (3)")
    await run(branch["connection_uri"], "alter table t add y int")
    assert await run(project["connection_uri"], "select x from t order by x") == [1, 3]
    assert await run(branch["connection_uri"], "select x from t order by x") == [1, 2]


@drivers
async def test_an_address_opens_the_database_that_it_names_and_no_other(api: Any, other: Any, run: Run) -> None:
    mine, theirs = await api.project("mine"), await other.project("theirs")
    branch = await branch_of(api, mine)
    # What a tenant can do to let others in: grant it to all, to one by name, to all that will ever be.
    for grant in (
        f"grant connect on database {database(theirs)} to public",
        f"grant all on database {database(theirs)} to {database(mine)} with grant option",
        f"grant {database(theirs)} to {database(mine)}",
        f"alter database {database(theirs)} connection limit -1",
    ):
        try:
            await run(theirs["connection_uri"], grant)
        except (asyncpg.InsufficientPrivilegeError, psycopg.errors.InsufficientPrivilege):
            continue
    for resource in (mine, branch):
        server = resource["connection_uri"].rpartition("/")[0]
        assert await run(resource["connection_uri"], "select current_user::text") == [database(resource)]
        others = {database(one) for one in (mine, branch, theirs)} - {database(resource)}
        for closed in (*others, "postgres", "template1", "template0"):
            with pytest.raises(REFUSED):
                await run(f"{server}/{closed}", "select 1")


@drivers
async def test_a_tenant_is_nobody_else_and_reaches_nothing_outside(api: Any, other: Any, run: Run) -> None:
    mine, theirs = await api.project("mine"), await other.project("theirs")
    for forbidden in (
        f"set role {database(theirs)}",
        "set role postgres",
        f"alter role {database(theirs)} password 'x'",
        f"alter database {database(theirs)} owner to {database(mine)}",
        f"drop database {database(theirs)}",
        f"create database x template {database(theirs)}",
        "create role x",
        "alter system set fsync = off",
        "copy (select 1) to program 'id'",
        "select pg_read_file('/etc/passwd')",
        "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres' and pid is not null",
        "create extension dblink",
        "load '/tmp/x.so'",
    ):
        with pytest.raises((asyncpg.PostgresError, psycopg.Error)):
            await run(mine["connection_uri"], forbidden)


async def test_branching_works_while_clients_hold_use_and_reopen_the_source(api: Any) -> None:
    """One idle in a transaction, one asleep in a statement, four that write without a pause and come back."""
    project = await api.project()
    uri = project["connection_uri"]
    await by_asyncpg(uri, "create table t (x int)")
    stop, written, refused = asyncio.Event(), list[int](), list[BaseException]()

    async def write() -> None:
        while not stop.is_set():
            try:
                connection = await asyncpg.connect(uri, timeout=10)
            except asyncpg.AdminShutdownError:
                continue  # cut off while it was being set up
            except (asyncpg.PostgresError, OSError) as error:
                refused.append(error)
                continue
            try:
                while not stop.is_set():
                    await connection.execute("insert into t values ($1)", len(written))
                    written.append(len(written))
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
                continue  # cut off by the copy
            finally:
                connection.terminate()

    idle = await psycopg.AsyncConnection.connect(uri)
    await idle.execute("insert into t values (-1)")  # and no commit
    asleep = await asyncpg.connect(uri)
    sleeping = asyncio.create_task(asleep.execute("select pg_sleep(60)"))
    writers = [asyncio.create_task(write()) for _ in range(4)]
    try:
        for number in range(4):
            before = len(written)
            branch = await branch_of(api, project, f"b{number}")
            (rows,) = await by_asyncpg(branch["connection_uri"], "select count(*) from t where x >= 0")
            assert rows >= before
            assert await by_asyncpg(branch["connection_uri"], "select x from t where x < 0") == []
            await asyncio.sleep(0.1)
    finally:
        stop.set()
        await asyncio.gather(*writers)
        await asyncio.gather(sleeping, idle.close(), return_exceptions=True)
        asleep.terminate()
    assert written
    assert refused == []
    assert await by_asyncpg(uri, "select count(*) >= 1 from t") == [True]
