"""What the owner of a database has set for it outside of it, where `CREATE DATABASE ... TEMPLATE` does not copy it.

These are the settings of the database, of its role, and of its role in it, as well as the comment, the grants, the
connection limit and the template flag of the database. They are read from the shared catalogs, so they are carried over
even from a snapshot, which nobody can connect to.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from attrs import frozen

from infrai_async.local.postgres.ownership import quoted

_Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
_logger = logging.getLogger(__name__)

_DATABASE = """
select datconnlimit, datistemplate, shobj_description(oid, 'pg_database') from pg_database where datname = $1
"""
_SETTINGS = """
select s.setrole <> 0, s.setdatabase <> 0, s.setconfig
from pg_db_role_setting s, pg_database d, pg_roles r
where d.datname = $1 and r.rolname = $1 and s.setdatabase in (0, d.oid) and s.setrole in (0, r.oid)
  and (s.setdatabase, s.setrole) <> (0, 0)
order by 1, 2
"""
_GRANTS = """
select r.rolname, a.privilege_type, bool_or(a.is_grantable)
from pg_database d
cross join aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
left join pg_roles r on r.oid = a.grantee
where d.datname = $1 and (a.grantee = 0 or r.oid is not null)
group by 1, 2 order by 1, 2
"""

# Their values are stored as lists of identifiers; a list that is set as a single string would become one identifier.
_LISTS = {
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
}
_FOLDED = {"search_path", "temp_tablespaces"}
_ITEM = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,\s]+))\s*(?:,|\Z)')
_ROLES = {"role", "session_authorization"}

# What a role without superuser rights meets when a superuser set something for a tenant, or an extension that is not
# loaded did. A copy without that setting is better than none.
_NOT_CARRIED = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidNameError,
    asyncpg.InvalidParameterValueError,
    asyncpg.CantChangeRuntimeParamError,
    asyncpg.FeatureNotSupportedError,
)


@frozen
class Setting:
    """A parameter of a database, of a role, or of a role in a database."""

    of_role: bool
    in_database: bool
    parameter: str
    value: str


@frozen
class Grant:
    """A privilege on a database; the grantee `None` is PUBLIC."""

    grantee: str | None
    privilege: str
    grantable: bool


@frozen
class OwnerSettings:
    """What was set for a database."""

    settings: tuple[Setting, ...]
    grants: tuple[Grant, ...]
    comment: str | None
    connection_limit: int
    is_template: bool


async def carry_over(connection: _Connection, source: str, copy: str) -> None:
    """Set for a copy what is set for its source, in one transaction; idempotent.

    Args:
        connection: A connection to any database of the server, as a superuser or a member of both roles.
        source: The name of a database and of its role.
        copy: The name of the copy and of its role.
    """
    found = await _read(connection, source)
    async with connection.transaction():
        await connection.execute("; ".join(cleared(copy)))
        for setting in found.settings:
            try:
                async with connection.transaction():
                    await connection.execute(statement(setting, source, copy))
            except _NOT_CARRIED as error:
                # The value is the tenant's, and may be a secret.
                _logger.warning("%s of %s cannot be set for its copy (%s)", setting.parameter, source, error.sqlstate)
        await connection.execute("; ".join(of_database(found, source, copy)))


async def _read(connection: _Connection, name: str) -> OwnerSettings:
    limit, is_template, comment = await connection.fetchrow(_DATABASE, name) or (-1, False, None)
    settings = [
        Setting(of_role, in_database, *entry.split("=", 1))
        for of_role, in_database, entries in await connection.fetch(_SETTINGS, name)
        for entry in entries
    ]
    grants = [Grant(*row) for row in await connection.fetch(_GRANTS, name)]
    return OwnerSettings(tuple(settings), tuple(grants), comment, limit, is_template)


def cleared(name: str) -> Iterator[str]:
    """Yield the SQL that removes all settings, such as those that an interrupted copy has made."""
    for of_role, in_database in ((False, True), (True, False), (True, True)):
        yield f"{_alter(name, of_role=of_role, in_database=in_database)} reset all"


def statement(setting: Setting, source: str, copy: str) -> str:
    """Return the SQL that makes a setting of the source one of the copy."""
    target = _alter(copy, of_role=setting.of_role, in_database=setting.in_database)
    parameter = ".".join(map(quoted, setting.parameter.split(".")))
    name, values = setting.parameter.lower(), [setting.value]
    if name in _LISTS:
        values = list(items(setting.value, folded=name in _FOLDED))
    elif name in _ROLES and setting.value == source:
        values = [copy]
    return f"{target} set {parameter} to {', '.join(map(literal, values)) or literal('')}"


def of_database(found: OwnerSettings, source: str, copy: str) -> Iterator[str]:
    """Yield the SQL for what a copied database has besides settings."""
    database = f"database {quoted(copy)}"
    # A member of several roles that may grant something grants it as any of them.
    yield f"set local role {quoted(copy)}"
    yield f"comment on {database} is {'null' if found.comment is None else literal(found.comment)}"
    yield f"revoke all on {database} from public, {quoted(copy)}"
    for grant in found.grants:
        to = "public" if grant.grantee is None else quoted(copy if grant.grantee == source else grant.grantee)
        option = " with grant option" if grant.grantable else ""
        yield f"grant {grant.privilege} on {database} to {to}{option}"
    yield f"alter {database} connection limit {found.connection_limit} is_template {found.is_template}"


def items(value: str, *, folded: bool) -> Iterator[str]:
    """Yield the identifiers of a list such as ``"$user", public``, as Postgres reads it.

    Args:
        value: the list as it is stored.
        folded: whether what is not quoted is in small letters.
    """
    for item in _ITEM.finditer(value):
        plain = item[2]
        yield item[1].replace('""', '"') if plain is None else plain.lower() if folded else plain


def literal(text: str) -> str:
    """Quote an SQL string, whatever `standard_conforming_strings` is."""
    return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def _alter(name: str, *, of_role: bool, in_database: bool) -> str:
    role, database = f"role {quoted(name)}", f"database {quoted(name)}"
    if not of_role:
        return f"alter {database}"
    return f"alter {role} in {database}" if in_database else f"alter {role}"
