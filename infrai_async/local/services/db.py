"""The ``db`` service: projects, branches and snapshots, each of which is a separate database on a real Postgres."""

from __future__ import annotations

from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from infrai_async.local._errors import RequestRefused, conflict, invalid, not_found
from infrai_async.local.postgres.databases import GONE
from infrai_async.local.services.base import (
    Data,
    Effect,
    ServiceCall,
    ServiceContext,
    capability,
    check_name,
    existing,
    iso,
    new_id,
)
from infrai_async.local.services.pagination import list_page
from infrai_async.local.state.tables import BRANCHES, DATABASES, PROJECTS, SNAPSHOTS, add, find, publish

_INTERNAL = frozenset({"database", "source"})
_MAIN = "main"


def _with_uri(context: ServiceContext, data: Data) -> Data:
    database = data["database"]
    uri = context.check_postgres().uri(database, context.keyring.password(database), context.host)
    return _without_database(context, data) | {"connection_uri": uri}


def _without_database(_: ServiceContext, data: Data) -> Data:
    return {name: value for name, value in data.items() if name not in _INTERNAL}


def _items_with_uri(context: ServiceContext, page: Data) -> Data:
    return page | {"items": [_with_uri(context, item) for item in page["items"]]}


def _items_without_database(context: ServiceContext, page: Data) -> Data:
    return page | {"items": [_without_database(context, item) for item in page["items"]]}


async def _create(context: ServiceContext, plan: Data) -> None:
    await context.check_postgres().create(plan["database"], context.keyring.password(plan["database"]))


async def _copy(context: ServiceContext, plan: Data) -> None:
    await context.check_postgres().copy(plan["source"], plan["database"], context.keyring.password(plan["database"]))


async def _freeze(context: ServiceContext, plan: Data) -> None:
    await context.check_postgres().freeze(plan["source"], plan["database"])


def _publish(table: Table, connection: Connection, plan: Data) -> bool:
    return publish(connection, table, plan["id"])


def _take_back(table: Table, connection: Connection, plan: Data) -> None:
    # The database is marked again even if a deletion already dropped it: the effect may have created it after the
    # drop, when nothing referred to it any more.
    connection.execute(table.delete().where(table.c.id == plan["id"]))
    connection.execute(DATABASES.delete().where(DATABASES.c.name == plan["database"]))
    connection.execute(DATABASES.insert().values(name=plan["database"], pending_delete=True))


def _effect(perform: Any, table: Table) -> Effect:
    return Effect(perform=perform, finish=partial(_publish, table), undo=partial(_take_back, table))


def _plan(call: ServiceCall, connection: Connection, table: Table, **values: Any) -> Data:
    """Record a resource that is about to be created and return its plan.

    The names are chosen and committed before the effect, so that resuming after a crash reuses the same database
    instead of creating a second one.
    """
    database = new_id("ifr")
    connection.execute(DATABASES.insert().values(name=database, pending_delete=False))
    plan = values | {"database": database, "created_at": iso(call.now)}
    add(connection, table, call.account, plan)
    return plan


def _mark_deleted(connection: Connection, table: Table, condition: sa.ColumnElement[bool]) -> list[str]:
    """Delete rows, mark their databases for deletion and return the names of these databases.

    Rows and marks change in one transaction. A crash before the databases are dropped leaves the marks, and the janitor
    finds them at the next start.
    """
    names = list(connection.scalars(table.delete().where(condition).returning(table.c.database)))
    connection.execute(DATABASES.update().where(DATABASES.c.name.in_(names)).values(pending_delete=True))
    return names


async def _close(context: ServiceContext, plan: Data) -> None:
    """Refuse connections before the call returns; the janitor drops the databases later, since that is slow."""
    try:
        await context.check_postgres().close(plan["databases"])
    except (*GONE, RequestRefused):
        # A server that is down accepts no connections, and reconciliation closes marked databases after its restart.
        return


_DELETION = Effect(perform=_close, finish=lambda connection, plan: True, undo=lambda connection, plan: None)


def _ok(_: ServiceContext, __: Data) -> Data:
    return {"ok": True}


# --- projects ----------------------------------------------------------------------------------------------------


@capability("db.project.create", effect=_effect(_create, PROJECTS), present=_with_uri)
def create_project(call: ServiceCall, connection: Connection) -> Data:
    """Create a project: a database and a role of its own."""
    version = call.context.check_postgres().version
    if call.params.get("postgres_version", version) != version:
        raise invalid(f"this gateway runs Postgres {version}", postgres_version=repr(version))
    if call.params.get("mode") == "byok":
        raise RequestRefused(
            400,
            "VALIDATION_ERROR",
            "the local gateway cannot use a vendor account of yours",
            hint="omit mode or set it to 'managed'; to use your own server, start the gateway with --postgres-dsn",
            details={"fields": {"mode": "'managed'"}},
        )
    return _plan(
        call,
        connection,
        PROJECTS,
        id=new_id("prj"),
        name=check_name("name", call.params["name"]),
        vendor=call.params.get("vendor", "local"),
        region=call.params.get("region", "local"),
        plan=call.params.get("plan"),
        mode="managed",
        postgres_version=version,
        status="ready",
    )


@capability("db.project.get", present=_with_uri)
def get_project(call: ServiceCall, connection: Connection) -> Data:
    """Return a project."""
    return existing(call, connection, PROJECTS, "DB_PROJECT", id=call.params["id"])


@capability("db.project.list", present=_items_with_uri)
def list_projects(call: ServiceCall, connection: Connection) -> Data:
    """Return a page of the account's projects."""
    return list_page(call, connection, PROJECTS)


@capability("db.project.delete", effect=_DELETION, present=_ok)
def delete_project(call: ServiceCall, connection: Connection) -> Data:
    """Delete a project with its branches and snapshots."""
    id = get_project(call, connection)["id"]
    names = [
        name for table in (BRANCHES, SNAPSHOTS) for name in _mark_deleted(connection, table, table.c.project_id == id)
    ]
    return {"databases": names + _mark_deleted(connection, PROJECTS, PROJECTS.c.id == id)}


# --- branches ----------------------------------------------------------------------------------------------------


@capability("db.branch.create", effect=_effect(_copy, BRANCHES), present=_with_uri)
def create_branch(call: ServiceCall, connection: Connection) -> Data:
    """Create a branch as a copy of the project's database or of another branch."""
    project = existing(call, connection, PROJECTS, "DB_PROJECT", id=call.params["project_id"])
    name = check_name("branch_name", call.params["branch_name"])
    taken = sa.select(BRANCHES.c.id).where(BRANCHES.c.project_id == project["id"], BRANCHES.c.branch_name == name)
    if name == _MAIN or connection.scalar(taken) is not None:
        raise conflict("DB_BRANCH_EXISTS", f"the project already has a branch {name!r}", branch_name=name)
    source = _source(call, connection, project)
    plan = _plan(
        call,
        connection,
        BRANCHES,
        id=new_id("br"),
        branch_name=name,
        project_id=project["id"],
        from_branch=call.params.get("from_branch"),
    )
    return plan | {"source": source}


def _source(call: ServiceCall, connection: Connection, project: Data) -> str:
    """Return the database that a branch is copied from (D28); a name takes precedence over an id."""
    wanted = call.params.get("from_branch", _MAIN)
    if wanted == _MAIN:
        return str(project["database"])
    for column in ("branch_name", "id"):
        branch = find(connection, BRANCHES, call.account, project_id=project["id"], **{column: wanted})
        if branch is not None:
            return str(branch["database"])
    raise not_found("DB_BRANCH", wanted)


@capability("db.branch.get", present=_with_uri)
def get_branch(call: ServiceCall, connection: Connection) -> Data:
    """Return a branch."""
    return existing(call, connection, BRANCHES, "DB_BRANCH", id=call.params["id"])


@capability("db.branch.list", present=_items_with_uri)
def list_branches(call: ServiceCall, connection: Connection) -> Data:
    """Return a page of branches, of one project if it is named."""
    return list_page(call, connection, BRANCHES, **call.given("project_id"))


@capability("db.branch.delete", effect=_DELETION, present=_ok)
def delete_branch(call: ServiceCall, connection: Connection) -> Data:
    """Delete a branch with its database."""
    return {"databases": _mark_deleted(connection, BRANCHES, BRANCHES.c.id == get_branch(call, connection)["id"])}


# --- snapshots ---------------------------------------------------------------------------------------------------


@capability("db.snapshot.create", effect=_effect(_freeze, SNAPSHOTS), present=_without_database)
def create_snapshot(call: ServiceCall, connection: Connection) -> Data:
    """Create a snapshot: a copy of the project's database that nobody can connect to."""
    project = existing(call, connection, PROJECTS, "DB_PROJECT", id=call.params["project_id"])
    label = check_name("label", call.params["label"]) if "label" in call.params else None
    plan = _plan(call, connection, SNAPSHOTS, id=new_id("snap"), project_id=project["id"], label=label)
    return plan | {"source": project["database"]}


@capability("db.snapshot.get", present=_without_database)
def get_snapshot(call: ServiceCall, connection: Connection) -> Data:
    """Return a snapshot."""
    return existing(call, connection, SNAPSHOTS, "DB_SNAPSHOT", id=call.params["id"])


@capability("db.snapshot.list", present=_items_without_database)
def list_snapshots(call: ServiceCall, connection: Connection) -> Data:
    """Return a page of snapshots, of one project if it is named."""
    return list_page(call, connection, SNAPSHOTS, **call.given("project_id"))


@capability("db.snapshot.restore", effect=_effect(_copy, PROJECTS), present=_with_uri)
def restore_snapshot(call: ServiceCall, connection: Connection) -> Data:
    """Create a new project from a snapshot."""
    snapshot = get_snapshot(call, connection)
    origin = existing(call, connection, PROJECTS, "DB_PROJECT", id=snapshot["project_id"])
    name = check_name("new_name", call.params.get("new_name", f"{origin['name'][:246]}-restored"))
    kept = {key: origin[key] for key in ("vendor", "region", "plan", "mode", "postgres_version", "status")}
    plan = _plan(call, connection, PROJECTS, id=new_id("prj"), name=name, **kept)
    return plan | {"source": snapshot["database"]}
