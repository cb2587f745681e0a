"""``db`` over HTTP: what the answers promise is tried on the real Postgres behind them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from infrai_async.local import LocalGateway
from infrai_async.local.postgres.binaries import find

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(resource: Any) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await asyncpg.connect(resource["connection_uri"])
    try:
        yield connection
    finally:
        await connection.close()


async def run(resource: Any, sql: str) -> Any:
    async with opened(resource) as connection:
        return await connection.fetchval(sql)


async def is_dropped(gateway: LocalGateway, resource: Any) -> bool:
    """Whether a database goes, which happens in the background; asked of Postgres, so that nobody is connected."""
    database = resource["connection_uri"].rpartition("/")[2]
    postgres = gateway._running.check_postgres()
    deadline = time.monotonic() + 60
    while database in await postgres.databases():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.05)
    with pytest.raises(asyncpg.InvalidPasswordError):  # there is no such role any more
        await asyncpg.connect(resource["connection_uri"])
    return True


async def test_a_projects_uri_opens_an_empty_database_of_its_own(api: Any) -> None:
    first, second = await api.project("a"), await api.project("a")
    assert first["id"] != second["id"]
    await run(first, "create table t (x int)")
    assert await run(first, "select count(*) from pg_tables where tablename = 't'") == 1
    assert await run(second, "select count(*) from pg_tables where tablename = 't'") == 0


async def test_a_projects_uri_opens_in_psql(api: Any) -> None:
    project = await api.project()
    command = [find().program("psql"), "-X", "-At", "-c", "select 6 * 7", project["connection_uri"]]
    said = await asyncio.to_thread(subprocess.run, command, capture_output=True, env=dict(os.environ), check=True)
    assert said.stdout == b"42\n"


async def test_one_project_cannot_open_anothers_database(api: Any) -> None:
    first, second = await api.project(), await api.project()
    stolen = first["connection_uri"].rpartition("/")[0] + "/" + second["connection_uri"].rpartition("/")[2]
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await run({"connection_uri": stolen}, "select 1")


async def test_a_project_answers_everything_that_was_asked_for(api: Any) -> None:
    wanted = {"name": "shop", "vendor": "Neon", "region": "us-east-1", "plan": "pro", "mode": "managed"}
    made = (await api.post("/v1/db/project/create", wanted | {"postgres_version": "18"})).data
    assert {name: made[name] for name in wanted} == wanted
    assert (made["postgres_version"], made["status"]) == ("18", "ready")
    assert (await api.get(f"/v1/db/project/get/{made['id']}")).data == made
    assert (await api.get("/v1/db/project/list")).data["items"] == [made]


async def test_unasked_a_project_is_local_and_managed(api: Any) -> None:
    made = await api.project()
    assert (made["vendor"], made["region"], made["mode"], made["plan"]) == ("local", "local", "managed", None)


async def test_another_postgres_version_is_refused_naming_the_one_there_is(api: Any) -> None:
    answer = await api.post("/v1/db/project/create", {"name": "a", "postgres_version": "9"})
    assert (answer.status, "Postgres 18" in answer.error["message"]) == (400, True)


async def test_byok_is_refused_naming_what_to_do(api: Any) -> None:
    answer = await api.post("/v1/db/project/create", {"name": "a", "mode": "byok", "vendor": "Neon"})
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert "managed" in answer.error["hint"]


async def test_a_branch_is_an_isolated_copy_of_the_project_as_it_was(api: Any) -> None:
    project = await api.project()
    await run(project, "create table t as select 1 as x")
    branch = (await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "dev"})).data
    await run(branch, "insert into t values (2)")
    await run(project, "insert into t values (3), (4)")
    assert await run(branch, "select array_agg(x order by x) from t") == [1, 2]
    assert await run(project, "select array_agg(x order by x) from t") == [1, 3, 4]
    assert (branch["branch_name"], branch["project_id"], branch["from_branch"]) == ("dev", project["id"], None)
    assert (await api.get(f"/v1/db/branch/get/{branch['id']}")).data == branch


async def test_a_branch_can_be_made_while_clients_are_connected(api: Any) -> None:
    project = await api.project()
    async with opened(project) as connection:
        await connection.execute("create table t as select 1 as x")
        made = await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "dev"})
    assert await run(made.data, "select x from t") == 1


async def test_a_branch_can_come_from_a_branch_by_name_or_id(api: Any) -> None:
    project = await api.project()

    async def branch(name: str, source: str | None) -> Any:
        body = {"project_id": project["id"], "branch_name": name, "from_branch": source}
        return (await api.post("/v1/db/branch/create", body)).data

    first = await branch("first", "main")
    await run(first, "create table t as select 7 as x")
    by_name, by_id = await branch("second", "first"), await branch("third", first["id"])
    assert [await run(made, "select x from t") for made in (by_name, by_id)] == [7, 7]
    assert (by_name["from_branch"], by_id["from_branch"]) == ("first", first["id"])


async def test_branches_of_what_is_not_there_are_404(api: Any, other: Any) -> None:
    project, theirs = await api.project(), await other.project()
    for id, source, code in (
        ("prj_none", None, "DB_PROJECT_NOT_FOUND"),
        (theirs["id"], None, "DB_PROJECT_NOT_FOUND"),
        (project["id"], "none", "DB_BRANCH_NOT_FOUND"),
    ):
        body = {"project_id": id, "branch_name": "b", "from_branch": source}
        answer = await api.post("/v1/db/branch/create", body)
        assert (answer.status, answer.code) == (404, code)


async def test_a_branch_name_used_twice_in_a_project_is_409(api: Any) -> None:
    project, second = await api.project(), await api.project()
    body = {"project_id": project["id"], "branch_name": "dev"}
    answers = await asyncio.gather(*(api.post("/v1/db/branch/create", body) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 409, 409, 409]
    assert (await api.post("/v1/db/branch/create", body | {"branch_name": "main"})).code == "DB_BRANCH_EXISTS"
    assert (await api.post("/v1/db/branch/create", body | {"project_id": second["id"]})).status == 200


async def test_a_snapshot_is_frozen_and_restores_into_a_new_project(api: Any) -> None:
    project = (await api.post("/v1/db/project/create", {"name": "shop", "region": "r", "plan": "p"})).data
    await run(project, "create table t as select 1 as x")
    taken = (await api.post("/v1/db/snapshot/create", {"project_id": project["id"], "label": "before"})).data
    await run(project, "update t set x = 2")
    restored = (await api.post(f"/v1/db/snapshot/restore/{taken['id']}", {"snapshot_id": taken["id"]})).data
    assert (restored["name"], restored["region"], restored["plan"]) == ("shop-restored", "r", "p")
    assert (await run(restored, "select x from t"), await run(project, "select x from t")) == (1, 2)
    named = await api.post(f"/v1/db/snapshot/restore/{taken['id']}", {"new_name": "again"})
    assert (named.data["name"], await run(named.data, "select x from t")) == ("again", 1)
    assert set(taken) == {"id", "project_id", "label", "created_at"}
    assert (await api.get(f"/v1/db/snapshot/get/{taken['id']}")).data == taken
    assert len((await api.get("/v1/db/project/list")).data["items"]) == 3


async def test_deleting_a_project_takes_its_branches_and_snapshots_along(api: Any, gateway: LocalGateway) -> None:
    project, kept = await api.project(), await api.project("kept")
    branch = (await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "b"})).data
    snapshot = (await api.post("/v1/db/snapshot/create", {"project_id": project["id"]})).data
    answer = await api.delete(f"/v1/db/project/delete/{project['id']}")
    assert (answer.data, answer.cost) == ({"ok": True}, 0)
    for path in (f"project/get/{project['id']}", f"branch/get/{branch['id']}", f"snapshot/get/{snapshot['id']}"):
        assert (await api.get(f"/v1/db/{path}")).status == 404
    assert (await api.get(f"/v1/db/branch/list?project_id={project['id']}")).data["items"] == []
    assert (await api.get("/v1/db/snapshot/list")).data["items"] == []
    assert await is_dropped(gateway, project)
    assert await is_dropped(gateway, branch)
    assert await run(kept, "select 1") == 1


async def test_deleting_a_branch_leaves_its_project(api: Any, gateway: LocalGateway) -> None:
    project = await api.project()
    branch = (await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "b"})).data
    assert (await api.delete(f"/v1/db/branch/delete/{branch['id']}")).data == {"ok": True}
    assert await is_dropped(gateway, branch)
    assert await run(project, "select 1") == 1
    again = await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "b"})
    assert again.status == 200


async def test_nothing_opens_and_nobody_stays_after_a_deletion_was_answered(api: Any) -> None:
    project = await api.project()
    branch = (await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "b"})).data
    inside = await asyncpg.connect(project["connection_uri"])
    for path in (f"branch/delete/{branch['id']}", f"project/delete/{project['id']}"):
        assert (await api.delete(f"/v1/db/{path}", key="k")).data == {"ok": True}
        assert (await api.delete(f"/v1/db/{path}", key="k")).data == {"ok": True}
        gone = branch if "branch" in path else project
        with pytest.raises(asyncpg.PostgresError):
            await asyncpg.connect(gone["connection_uri"])
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await inside.fetch("select 1")
    inside.terminate()


async def test_deleting_what_is_gone_is_404(api: Any) -> None:
    for path in ("project", "branch"):
        answer = await api.delete(f"/v1/db/{path}/delete/none")
        assert (answer.status, answer.code) == (404, f"DB_{path.upper()}_NOT_FOUND")


async def test_a_branch_whose_project_is_deleted_meanwhile_is_refused_and_refunded(api: Any) -> None:
    project = await api.project()
    await run(project, "create table t as select generate_series(1, 300000) as x")
    before = await api.balance()
    body = {"project_id": project["id"], "branch_name": "b"}
    making = asyncio.create_task(api.post("/v1/db/branch/create", body, key="k"))
    while await api.balance() == before:
        await asyncio.sleep(0.001)
    assert (await api.delete(f"/v1/db/project/delete/{project['id']}")).status == 200
    answer = await making
    assert answer.status in (404, 409), answer.text
    assert await api.balance() == before
    assert (await api.get("/v1/db/branch/list")).data["items"] == []


async def test_one_account_sees_nothing_of_another(api: Any, other: Any) -> None:
    project = await api.project()
    branch = (await api.post("/v1/db/branch/create", {"project_id": project["id"], "branch_name": "b"})).data
    for path in (f"project/get/{project['id']}", f"branch/get/{branch['id']}"):
        assert (await other.get(f"/v1/db/{path}")).status == 404
    assert (await other.delete(f"/v1/db/project/delete/{project['id']}")).status == 404
    assert (await other.get(f"/v1/db/branch/list?project_id={project['id']}")).data["items"] == []
    assert (await other.get("/v1/db/project/list")).data["items"] == []


async def test_many_projects_at_once_are_as_many_databases(api: Any) -> None:
    made = await asyncio.gather(*(api.project(f"p{number}") for number in range(20)))
    assert len({project["connection_uri"] for project in made}) == 20
    listed = (await api.get("/v1/db/project/list")).data["items"]
    assert sorted(item["name"] for item in listed) == sorted(f"p{number}" for number in range(20))
    assert await asyncio.gather(*(run(project, "select 1") for project in made)) == [1] * 20
