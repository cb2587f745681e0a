"""Databases on a real server: on one of ours by every version at hand, and on an existing one without a superuser."""

from __future__ import annotations

import asyncio
import subprocess

import asyncpg
import pytest
from support.existing import ordinary_role

from infrai_async.local.postgres.binaries import find
from infrai_async.local.postgres.databases import Postgres, PostgresUnavailable

from .conftest import PASSWORD, client, everywhere, made, name, rows, temporary

pytestmark = pytest.mark.anyio


async def test_a_database_opens_in_psql(postgres: Postgres) -> None:
    database = await made(postgres)
    psql = await asyncio.create_subprocess_exec(
        *(find().program("psql"), postgres.uri(database, PASSWORD), "-Atc", "select x, current_user from t"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert await psql.communicate() == (f"1|{database}\n".encode(), b"")


async def test_another_password_does_not_open_it(postgres: Postgres) -> None:
    database = await made(postgres)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(postgres.uri(database, PASSWORD + "x"), timeout=10)


async def test_writes_on_a_branch_and_on_its_source_do_not_meet(postgres: Postgres) -> None:
    source, branch = await made(postgres), name()
    await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, source) as one, client(postgres, branch) as other:
        await one.execute("insert into t values (2)")
        await other.execute("insert into t values (3)")
    assert await rows(postgres, source) == [1, 2]
    assert await rows(postgres, branch) == [1, 3]


@everywhere
async def test_what_is_in_a_branch_belongs_to_its_role(postgres: Postgres) -> None:
    source = await made(
        postgres,
        "create schema s; create table s.t (x int); create view v as select 1; create sequence q;"
        "create function f() returns int language sql as 'select 1'; create type e as enum ('a'); select lo_create(7)",
    )
    branch = name()
    await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, branch) as connection:
        await connection.execute(
            "alter table s.t add y int; drop table s.t; drop schema s; drop view v; drop sequence q;"
            "drop function f(); drop type e; select lo_unlink(7)"
        )


@everywhere
async def test_a_source_still_belongs_to_its_role_after_a_branch(postgres: Postgres) -> None:
    source = await made(postgres)
    await postgres.copy(source, name(), PASSWORD)
    async with client(postgres, source) as connection:
        await connection.execute("alter table t add y int; create table u (); create schema s; drop table t")
        owner = "select pg_get_userbyid(datdba) from pg_database where datname = current_database()"
        assert await connection.fetchval(owner) == source


@everywhere
async def test_a_branch_keeps_policies_and_default_privileges_for_its_own_role(postgres: Postgres) -> None:
    source = await made(
        postgres,
        "create table t (x int); insert into t values (1), (2);"
        "alter table t enable row level security; alter table t force row level security;"
        "create policy odd on t to current_user using (x % 2 = 1);"
        "alter default privileges grant select on tables to public;"
        "alter default privileges revoke execute on functions from public;"
        "alter default privileges in schema public grant usage on sequences to public",
    )
    branch = name()
    await postgres.copy(source, branch, PASSWORD)
    assert await rows(postgres, branch) == [1]
    query = "select defaclobjtype::text || defaclacl::text from pg_default_acl order by 1"
    before = [str(row).replace(source, branch) for row in await rows(postgres, source, query)]
    assert len(before) == 3
    assert await rows(postgres, branch, query) == before


@everywhere
async def test_no_role_opens_the_database_of_another(postgres: Postgres) -> None:
    source, stranger, branch = await made(postgres), await made(postgres), name()
    await postgres.copy(source, branch, PASSWORD)
    for role, database in ((stranger, source), (branch, source), (source, branch), (source, "postgres")):
        with pytest.raises((asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InsufficientPrivilegeError)):
            await asyncpg.connect(postgres.uri(role, PASSWORD), database=database, timeout=10)


async def test_a_tenant_cannot_open_its_database_to_all() -> None:
    async with temporary() as postgres:
        source, stranger = await made(postgres), await made(postgres)
        async with client(postgres, source) as connection:
            await connection.execute(f"grant connect on database {source} to public")
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await asyncpg.connect(postgres.uri(stranger, PASSWORD), database=source, timeout=10)


async def test_a_tenant_rules_its_database_only(postgres: Postgres) -> None:
    async with client(postgres, await made(postgres)) as connection:
        for forbidden in ("create role x", "create database x", "copy t to '/tmp/x'"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)


async def test_a_snapshot_keeps_its_moment_and_nobody_opens_it(postgres: Postgres) -> None:
    source, snapshot, restored = await made(postgres), name(), name()
    await postgres.freeze(source, snapshot)
    async with client(postgres, source) as connection:
        await connection.execute("insert into t values (2)")
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await asyncpg.connect(postgres.uri(snapshot, PASSWORD), timeout=10)
    await postgres.copy(snapshot, restored, PASSWORD)
    assert await rows(postgres, restored) == [1]


@everywhere
async def test_a_snapshot_outlives_its_source(postgres: Postgres) -> None:
    source, snapshot, restored = await made(postgres), name(), name()
    await postgres.freeze(source, snapshot)
    await postgres.drop(source)
    await postgres.copy(snapshot, restored, PASSWORD)
    await postgres.drop(snapshot)
    assert await rows(postgres, restored) == [1]
    assert not {source, snapshot} & await postgres.databases()


async def test_branching_goes_on_under_clients_that_reconnect(postgres: Postgres) -> None:
    source, branches = await made(postgres), [name() for _ in range(3)]
    stop, refused = asyncio.Event(), list[BaseException]()

    async def busy() -> None:
        while not stop.is_set():
            try:
                connection = await asyncpg.connect(postgres.uri(source, PASSWORD), timeout=10)
            except (asyncpg.PostgresError, OSError) as error:
                refused.append(error)
                continue
            try:
                while not stop.is_set():
                    await connection.fetchval("select count(*) from t")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                continue  # cut off by the copy
            finally:
                connection.terminate()

    clients = [asyncio.create_task(busy()) for _ in range(6)]
    try:
        for branch in branches:
            await postgres.copy(source, branch, PASSWORD)
            assert await rows(postgres, branch) == [1]
    finally:
        stop.set()
        await asyncio.gather(*clients)
    # A session that is cut off while it is being set up is told so; being refused is what must not happen.
    assert [error for error in refused if not isinstance(error, asyncpg.AdminShutdownError)] == []


async def test_copies_of_one_source_made_at_once_are_all_whole(postgres: Postgres) -> None:
    source, branches = await made(postgres), [name() for _ in range(5)]
    await asyncio.gather(*(postgres.copy(source, branch, PASSWORD) for branch in branches))
    assert [await rows(postgres, branch) for branch in branches] == [[1]] * 5


async def test_what_is_closed_while_it_is_made_or_dropped_fails_neither(postgres: Postgres) -> None:
    for _ in range(8):
        database = name()
        await postgres._make_role(database, None)  # as a copy that is resumed finds it
        await asyncio.gather(*(postgres.close([database]) for _ in range(2)), postgres._make_role(database, None))
        await postgres.create(database, PASSWORD)
        await asyncio.gather(postgres.drop(database), *(postgres.close([database]) for _ in range(2)))


async def test_everything_may_be_done_twice(postgres: Postgres) -> None:
    source, branch, snapshot = await made(postgres), name(), name()
    for _ in range(2):
        await postgres.create(source, PASSWORD)
        await postgres.copy(source, branch, PASSWORD)
        await postgres.freeze(source, snapshot)
    assert {source, branch, snapshot} <= await postgres.databases()
    assert await rows(postgres, branch) == await rows(postgres, source) == [1]
    for _ in range(2):
        for database in (source, branch, snapshot):
            await postgres.drop(database)
    assert not {source, branch, snapshot} & await postgres.databases()


async def test_a_copy_that_died_before_its_last_step_is_finished(postgres: Postgres) -> None:
    source, branch = await made(postgres), name()
    await postgres._make_role(branch, None)
    await postgres._make_database_from(source, branch)
    assert branch in await postgres.databases()
    await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, branch) as connection:
        await connection.execute("drop table t")


@everywhere
async def test_a_copy_that_died_does_not_keep_its_source_from_being_dropped(postgres: Postgres) -> None:
    source, branch = await made(postgres), name()
    await postgres._make_role(branch, None)
    await postgres._make_database_from(source, branch)
    await postgres.drop(source)
    assert source not in await postgres.databases()


async def test_what_a_tenant_granted_does_not_keep_another_from_being_dropped(postgres: Postgres) -> None:
    granted = await made(postgres)
    tenant, snapshot = await made(postgres, f"create table t (x int); grant select on t to {granted}"), name()
    await postgres.freeze(tenant, snapshot)
    await postgres.drop(granted)
    assert granted not in await postgres.databases()
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await asyncpg.connect(postgres.uri(snapshot, PASSWORD), timeout=10)


async def test_settings_of_a_tenant_do_not_get_in_the_way(postgres: Postgres) -> None:
    source = await made(postgres)
    async with client(postgres, source) as connection:
        for setting in ("default_transaction_read_only = on", "statement_timeout = 1", "search_path = nowhere"):
            await connection.execute(f"alter database {source} set {setting}")
        await connection.execute(f"alter database {source} is_template true")
    branch = name()
    await postgres.copy(source, branch, PASSWORD)
    await postgres.drop(source)
    async with client(postgres, branch, search_path="public", statement_timeout="0") as connection:
        assert await connection.fetchval("select count(*) from t") == 1


async def test_dropping_disconnects_the_clients(postgres: Postgres) -> None:
    database = await made(postgres)
    connection = await asyncpg.connect(postgres.uri(database, PASSWORD))
    await postgres.drop(database)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("select 1")
    connection.terminate()


async def test_a_large_source_is_copied_by_file(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrai_async.local.postgres.databases._LARGEST_LOGGED", 0)
    source, branch = await made(postgres), name()
    await postgres.copy(source, branch, PASSWORD)
    assert await rows(postgres, branch) == [1]


async def test_a_copy_of_nothing_leaves_nothing(postgres: Postgres) -> None:
    branch = name()
    with pytest.raises(LookupError, match="ifr_absent"):
        await postgres.copy("ifr_absent", branch, PASSWORD)
    assert branch not in await postgres.databases()


@pytest.mark.parametrize("odd", ["postgres", "ifr_", "ifr_A", 'ifr_"; drop database postgres; --', "ifr_" + "a" * 60])
async def test_a_name_of_another_kind_is_refused(postgres: Postgres, odd: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        await postgres.freeze(name(), odd)


async def test_a_cancelled_copy_can_be_repeated(postgres: Postgres) -> None:
    source, branch = await made(postgres), name()
    for patience in (0.002, 0.01, 0.03):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(postgres.copy(source, branch, PASSWORD), patience)
    await postgres.copy(source, branch, PASSWORD)
    assert await rows(postgres, branch) == [1]


async def test_two_gateways_on_one_server_tell_theirs_apart() -> None:
    async with temporary() as server, ordinary_role(server) as dsn, temporary(dsn) as one, temporary(dsn) as other:
        mine, theirs = await made(one), await made(other)
        assert await one.databases() == {mine}
        assert await other.databases() == {theirs}


async def test_a_role_that_may_not_make_databases_is_told_what_it_needs() -> None:
    async with temporary() as server, ordinary_role(server) as dsn:
        keeper = await asyncpg.connect(dsn)
        await keeper.execute("create role weak login password 'weak'")
        await keeper.close()
        with pytest.raises(PostgresUnavailable, match='ALTER ROLE "weak" CREATEDB CREATEROLE'):
            async with temporary(dsn.replace("keeper:keeper", "weak:weak")):
                pass


async def test_an_address_without_a_server_is_told_without_its_password() -> None:
    with pytest.raises(PostgresUnavailable, match=r"127\.0\.0\.1:1 ") as refusal:
        async with temporary("postgresql://me:hidden@127.0.0.1:1/db"):
            pass
    assert "hidden" not in str(refusal.value)
    assert refusal.value.__suppress_context__


async def test_no_password_shows_in_the_log_or_in_statements(postgres: Postgres) -> None:
    database = await made(postgres)
    stored = "select query from pg_stat_activity where query ~ $1"
    async with client(postgres, database) as connection:
        assert await connection.fetch(stored, PASSWORD) == []
    assert PASSWORD not in repr(postgres)


# --- what an owner has set ---------------------------------------------------------------------------------------

OWNERS = [
    "create schema app; create table app.t (a int); insert into app.t values (7)",
    """alter database {db} set search_path = app, "$user", public""",
    "alter database {db} set timezone = 'Europe/Berlin'",
    "alter database {db} set application_name = 'it''s \\ \"here\"; drop table t'",
    "alter role {db} set statement_timeout = '7s'",
    "alter role {db} in database {db} set lock_timeout = '3s'",
    "comment on database {db} is 'Anna''s \\ shop'",
    "grant temporary on database {db} to public",
    "revoke temporary on database {db} from {db}",
    "alter database {db} connection limit 20",
]
SEEN = """
select current_setting('search_path'), current_setting('timezone'), current_setting('application_name'),
       current_setting('statement_timeout'), current_setting('lock_timeout'), (select a from t), datconnlimit,
       shobj_description(oid, 'pg_database'),
       (select string_agg(case grantee when 0 then 'public' when datdba then 'owner' end || ' ' || privilege_type, ', '
                          order by grantee, privilege_type) from aclexplode(datacl))
from pg_database where datname = current_database()
"""


@everywhere
async def test_a_copy_keeps_what_its_owner_has_set_down_any_chain(postgres: Postgres) -> None:
    source, branch, frozen, restored = name(), name(), name(), name()
    await postgres.create(source, PASSWORD)
    async with client(postgres, source) as connection:
        for statement in OWNERS:
            await connection.execute(statement.format(db=source))
    async with client(postgres, source) as connection:
        wanted = tuple(await connection.fetchrow(SEEN))
    assert wanted[:3] == ('app, "$user", public', "Europe/Berlin", 'it\'s \\ "here"; drop table t')
    assert wanted[3:7] == ("7s", "3s", 7, 20)
    assert wanted[8] == "public TEMPORARY, owner CONNECT, owner CREATE"
    await postgres.copy(source, branch, PASSWORD)
    await postgres.freeze(branch, frozen)
    await postgres.copy(frozen, restored, PASSWORD)
    for copy in (branch, restored):
        async with client(postgres, copy) as connection:
            assert tuple(await connection.fetchrow(SEEN)) == wanted
    async with client(postgres, source) as connection:
        assert tuple(await connection.fetchrow(SEEN)) == wanted


@everywhere
async def test_a_copy_gives_nobody_more_than_its_source(postgres: Postgres) -> None:
    source, other, branch = await made(postgres), await made(postgres), name()
    async with client(postgres, source) as connection:
        await connection.execute(f"grant connect on database {source} to {other} with grant option")
    await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, branch) as connection:
        grants = await connection.fetch(
            "select pg_get_userbyid(grantee) as who, privilege_type, is_grantable from pg_database, aclexplode(datacl)"
            " where datname = current_database() and grantee <> datdba"
        )
    assert [tuple(grant) for grant in grants] == [(other, "CONNECT", True)]
    await postgres.drop(branch)
    await postgres.drop(source)
    await postgres.drop(other)


async def test_a_list_that_was_written_by_hand_is_quoted_anew(postgres: Postgres) -> None:
    source, branch = await made(postgres), name()
    async with client(postgres, source) as connection:
        await connection.execute("select set_config('search_path', 'Public,\"a \"\"b\",x;drop', false)")
        await connection.execute(f"alter database {source} set search_path from current")
    await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, branch) as connection:
        shown = await connection.fetchval("select current_schemas(false)::text || current_setting('search_path')")
    assert shown == '{public}public, "a ""b", "x;drop"'


async def test_text_of_any_language_is_compared_as_its_readers_do(postgres: Postgres) -> None:
    database = await made(postgres, "create table people (name text); create unique index on people (lower(name))")
    async with client(postgres, database) as connection:
        if not await connection.fetchval("select upper('ä') = 'Ä'") and postgres._server is None:
            pytest.skip("the locale of an existing server is its owner's")
        assert await connection.fetchval("select lower('ÄÖ') = 'äö' and 'É' ilike 'é' and 'É' ~* 'é'")
        assert await connection.fetchval("select initcap('élan vital')") == "Élan Vital"
        await connection.execute("insert into people values ('ÄNNE')")
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("insert into people values ('änne')")
        assert await connection.fetchval("select array_agg(x order by x)::text from unnest('{b,a,Z,ä}'::text[]) x") == (
            "{Z,a,b,ä}"
        )
