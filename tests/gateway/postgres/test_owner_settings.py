"""What an owner sets for a database, in all its copies: the SQL for it, and copies of copies on real servers."""

from __future__ import annotations

import logging

import pytest

from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.postgres.owner_settings import Setting, items, literal, statement

from .conftest import PASSWORD, client, everywhere, made, name, superuser

pytestmark = pytest.mark.anyio

SETTINGS = """
select s.setrole <> 0, s.setdatabase <> 0, s.setconfig
from pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase left join pg_roles r on r.oid = s.setrole
where $1 in (d.datname, r.rolname) order by 1, 2
"""
OF_DATABASE = """
select shobj_description(oid, 'pg_database'), datconnlimit, datistemplate,
       array(select (case grantee when 0 then 'public' else pg_get_userbyid(grantee) end,
                     privilege_type, is_grantable)::text
             from aclexplode(datacl) order by pg_get_userbyid(grantee) = $1, 1)::text
from pg_database where datname = $1
"""
ODD = 'a "quoted" Schema, with commas'
WHAT_OWNERS_SET = """
alter database {name} set search_path = "$user", app, {odd}, public;
alter database {name} set timezone = 'Europe/Berlin';
alter database {name} set datestyle = 'SQL, DMY';
alter database {name} set application_name = 'it''s a \\ test; drop role postgres --';
alter database {name} set temp_tablespaces = '';
alter role {name} set statement_timeout = '7s';
alter role {name} set role = {name};
alter role {name} set default_transaction_isolation = 'serializable';
alter role {name} in database {name} set lock_timeout = '3s';
comment on database {name} is 'the shop''s \\ "database"';
alter database {name} connection limit 7 is_template true;
revoke create on database {name} from {name};
grant temporary on database {name} to public;
grant create on database {name} to {other} with grant option
"""


async def everything(postgres: Postgres, database: str) -> str:
    """All that is set for a database, as a text in which its name is replaced."""
    found = [row for query in (SETTINGS, OF_DATABASE) for row in await postgres._pool.fetch(query, database)]
    return "\n".join(map(repr, map(tuple, found))).replace(database, "NAME")


@everywhere
async def test_all_that_an_owner_has_set_is_there_down_a_chain_of_copies(postgres: Postgres) -> None:
    source, other = await made(postgres), await made(postgres)
    odd = '"' + ODD.replace('"', '""') + '"'
    async with client(postgres, source) as connection:
        await connection.execute(f"create schema app; create schema {odd}")
        await connection.execute(WHAT_OWNERS_SET.format(name=source, other=other, odd=odd))
    wanted = await everything(postgres, source)
    assert wanted.count("=") == 9
    branch, snapshot, restored, last = name(), name(), name(), name()
    await postgres.copy(source, branch, PASSWORD)
    await postgres.freeze(branch, snapshot)
    await postgres.drop(branch)
    await postgres.copy(snapshot, restored, PASSWORD)
    for _ in range(2):
        await postgres.copy(restored, last, PASSWORD)
    for copy in (restored, last):
        assert await everything(postgres, copy) == wanted
    async with client(postgres, last) as connection:
        assert await connection.fetchval("select current_schemas(false)::text") == await _schemas(postgres, source)
        assert await connection.fetchval("show application_name") == "it's a \\ test; drop role postgres --"
        assert await connection.fetchval("show datestyle") == "SQL, DMY"
        assert await connection.fetchval("show role") == last
    for database in (source, snapshot, restored, last, other):
        await postgres.drop(database)
    assert not {source, snapshot, restored, last, other} & await postgres.databases()


async def _schemas(postgres: Postgres, database: str) -> str:
    async with client(postgres, database) as connection:
        return str(await connection.fetchval("select current_schemas(false)::text"))


@everywhere
async def test_what_is_unset_meanwhile_is_not_set_in_a_copy_that_is_resumed(postgres: Postgres) -> None:
    source, branch = await made(postgres), name()
    async with client(postgres, source) as connection:
        await connection.execute(f"alter database {source} set work_mem = '7MB'; comment on database {source} is 'x'")
        await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, source) as connection:
        await connection.execute(f"alter database {source} reset work_mem; comment on database {source} is null")
    await postgres.copy(source, branch, PASSWORD)
    assert await everything(postgres, branch) == await everything(postgres, source)


@everywhere
async def test_a_value_that_was_never_checked_is_a_value_in_a_copy_too(postgres: Postgres) -> None:
    """`set from current` stores what `set_config` was given, as it stands."""
    source, branch = await made(postgres), name()
    hostile = "App,x;create/**/role/**/intruder"
    async with client(postgres, source) as connection:
        await connection.execute("select set_config('search_path', $1, false)", hostile)
        await connection.execute(f"alter database {source} set search_path from current")
    await postgres.copy(source, branch, PASSWORD)
    async with client(postgres, branch) as connection:
        assert await connection.fetchval("show search_path") == 'app, "x;create/**/role/**/intruder"'
        assert await connection.fetchval("select 1 from pg_roles where rolname = 'intruder'") is None


@everywhere
async def test_what_a_superuser_set_for_a_tenant_stops_no_copy(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    source, branch = await made(postgres), name()
    async with superuser(postgres) as connection:
        await connection.execute(f"alter database {source} set log_statement = 'ddl'")
        await connection.execute(f"alter database {source} set nowhere.secret = 'tell nobody'")
        await connection.execute(f"alter role {source} set work_mem = '7MB'")
    with caplog.at_level(logging.WARNING):
        await postgres.copy(source, branch, PASSWORD)
    of_superuser = postgres._superuser
    async with client(postgres, branch) as connection:
        assert await connection.fetchval("show work_mem") == "7MB"
        assert (await connection.fetchval("show log_statement") == "ddl") == of_superuser
        assert await connection.fetchval("select current_setting('nowhere.secret', true)") == (
            "tell nobody" if of_superuser else None
        )
    assert ("nowhere.secret" in caplog.text) != of_superuser
    assert "tell nobody" not in caplog.text


@everywhere
async def test_a_privilege_on_a_database_does_not_keep_the_role_that_has_it(postgres: Postgres) -> None:
    source, granted = await made(postgres), await made(postgres)
    async with client(postgres, source) as connection:
        await connection.execute(f"grant temporary on database {source} to {granted}")
    await postgres.drop(granted)
    assert granted not in await postgres.databases()
    assert "TEMPORARY" in await everything(postgres, source)
    assert "unknown" not in await everything(postgres, source)


@everywhere
async def test_nothing_that_a_tenant_sets_keeps_the_gateway_out(postgres: Postgres) -> None:
    source, granted, branch = await made(postgres), await made(postgres), name()
    async with client(postgres, source) as connection:
        await connection.execute(f"create table u (); grant select on u to {granted}")
        for setting in (
            f"role = {source}",
            "local_preload_libraries = 'nothing_of_that_name'",
            "idle_in_transaction_session_timeout = 1",
            "default_transaction_isolation = 'serializable'",
            *(["transaction_timeout = 1"] if int(postgres.version) >= 17 else []),
        ):
            await connection.execute(f"alter database {source} set {setting}")
    await postgres.drop(granted)
    for _ in range(2):
        await postgres.copy(source, branch, PASSWORD)
    assert granted not in await postgres.databases()


@pytest.mark.parametrize(
    ("stored", "folded", "wanted"),
    [
        ('"$user", public', True, ["$user", "public"]),
        ("App,  B ,c", True, ["app", "b", "c"]),
        ("App,  B ,c", False, ["App", "B", "c"]),
        ('"A ""b"", c", d', True, ['A "b", c', "d"]),
        ('""', True, [""]),
        ("", True, []),
    ],
)
def test_a_list_is_taken_apart_as_postgres_does(stored: str, folded: bool, wanted: list[str]) -> None:
    assert list(items(stored, folded=folded)) == wanted


@pytest.mark.parametrize(
    ("setting", "sql"),
    [
        (Setting(False, True, "TimeZone", "UTC"), """alter database "new" set "TimeZone" to E'UTC'"""),
        (Setting(True, False, "app.it's", "a'b\\c"), """alter role "new" set "app"."it's" to E'a''b\\\\c'"""),
        (Setting(True, True, "search_path", '""'), """alter role "new" in database "new" set "search_path" to E''"""),
        (Setting(True, False, "role", "old"), """alter role "new" set "role" to E'new'"""),
        (Setting(True, False, "role", "older"), """alter role "new" set "role" to E'older'"""),
    ],
)
def test_every_setting_is_quoted(setting: Setting, sql: str) -> None:
    assert statement(setting, "old", "new") == sql


def test_a_text_ends_where_it_ends() -> None:
    assert literal("'; --\\") == "E'''; --\\\\'"
