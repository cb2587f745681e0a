"""The tables of the gateway's state, and the queries that all services share.

A resource becomes visible once its row has a ``seq``, its position in the order of creation; a row without one is still
being created outside the state. Numbers are never reused, so a cursor remains valid while rows come and go.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
)
from sqlalchemy.schema import CreateColumn

METADATA: Final = sa.MetaData()

ACCOUNTS: Final = Table(
    "accounts",
    METADATA,
    Column("id", String, primary_key=True),
    Column("project_id", String, nullable=False),
    Column("key_hash", String, nullable=False, unique=True),
    Column("nano", BigInteger, CheckConstraint("nano >= 0"), nullable=False),
    Column("created_at", String, nullable=False),
)
TOPUPS: Final = Table(
    "topups",
    METADATA,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("nano", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("return_url", String),
    Column("created_at", String, nullable=False),
)
OPERATIONS: Final = Table(
    "operations",
    METADATA,
    Column("id", String, primary_key=True),
    Column("account_id", String),
    Column("capability", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("state", String, nullable=False),
    Column("nano", BigInteger, nullable=False),
    Column("data", sa.JSON, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("owner", String),
)
GATEWAYS: Final = Table(
    "gateways",
    METADATA,
    Column("id", String, primary_key=True),
    Column("beat", BigInteger, nullable=False),
)
ROOT: Final = Table("root", METADATA, Column("secret", LargeBinary, nullable=False))
COUNTER: Final = Table("counter", METADATA, Column("last", BigInteger, nullable=False))
DATABASES: Final = Table(
    "databases",
    METADATA,
    Column("name", String, primary_key=True),
    Column("doomed", Boolean, nullable=False, key="pending_delete"),
)
OBJECTS: Final = Table(
    "objects",
    METADATA,
    Column("bucket_id", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("blob", String, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("etag", String, nullable=False),
    Column("headers", sa.JSON, nullable=False),
    Column("modified", String, nullable=False),
)
DELETED_BLOBS: Final = Table("doomed_blobs", METADATA, Column("blob", String, primary_key=True))
COUNTED: Final = ("hits", "misses", "bytes_served")
"""What the edge counts, by distribution and minute."""
TRAFFIC: Final = Table(
    "traffic",
    METADATA,
    Column("distribution_id", String, primary_key=True),
    Column("minute", BigInteger, primary_key=True),
    *(Column(name, BigInteger, nullable=False) for name in COUNTED),
)
PURGES: Final = Table(
    "purges",
    METADATA,
    Column("distribution_id", String, primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("selectors", sa.JSON, nullable=False),
)


def _resource(name: str, *columns: Column[Any], unique: tuple[str, ...] = ()) -> Table:
    """Declare a table of resources that belong to an account and can be listed."""
    table = Table(
        name,
        METADATA,
        Column("id", String, primary_key=True),
        Column("account_id", String, nullable=False),
        Column("seq", BigInteger),
        *columns,
        Column("created_at", String, nullable=False),
    )
    Index(f"{name}_in_order", table.c.account_id, table.c.seq)
    if unique:
        Index(f"{name}_names", *(table.c[column] for column in unique), unique=True)
    return table


def _text(name: str, *, required: bool = True) -> Column[str]:
    return Column(name, String, nullable=not required)


PROJECTS: Final = _resource(
    "projects",
    *(_text(name) for name in ("name", "vendor", "region", "mode", "postgres_version", "status", "database")),
    _text("plan", required=False),
)
BRANCHES: Final = _resource(
    "branches",
    *(_text(name) for name in ("branch_name", "project_id", "database")),
    _text("from_branch", required=False),
    unique=("project_id", "branch_name"),
)
SNAPSHOTS: Final = _resource("snapshots", _text("project_id"), _text("database"), _text("label", required=False))
BUCKETS: Final = _resource(
    "buckets", *(_text(name) for name in ("bucket", "vendor", "region", "acl")), unique=("account_id", "bucket")
)
DISTRIBUTIONS: Final = _resource(
    "distributions",
    _text("origin"),
    _text("domain", required=False),
    Column("enabled", Boolean, nullable=False),
    Column("cache_ttl_seconds", BigInteger, nullable=False),
    Column("allowed_methods", sa.JSON, nullable=False),
    Column("https_only", Boolean, nullable=False),
    Column("tags", sa.JSON, nullable=False),
    _text("vendor"),
)
FLAGS: Final = _resource(
    "flags",
    _text("key"),
    _text("description", required=False),
    _text("type"),
    Column("default_value", sa.JSON),
    Column("rules", sa.JSON, nullable=False),
    Column("rollout", sa.JSON),
    Column("tags", sa.JSON, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("version", Integer, nullable=False),
    Column("archived", Boolean, nullable=False),
    _text("updated_at"),
    unique=("account_id", "key"),
)

_INTERNAL: Final = frozenset({"account_id", "seq"})


def prepare(connection: Connection) -> None:
    """Create missing tables, and add columns that tables created by an older version lack."""
    METADATA.create_all(connection)
    found = sa.inspect(connection).get_multi_columns()
    there = {(table, column["name"]) for (_, table), columns in found.items() for column in columns}
    for table in METADATA.tables.values():
        for column in (column for column in table.columns if (table.name, column.name) not in there):
            described = CreateColumn(column).compile(dialect=connection.dialect)
            connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {described}")
    if connection.scalar(sa.select(COUNTER.c.last)) is None:
        connection.execute(COUNTER.insert().values(last=0))


def document(row: sa.Row[Any]) -> dict[str, Any]:
    """Return the fields of a resource, without internal columns."""
    return {name: value for name, value in row._mapping.items() if name not in _INTERNAL}


def find(connection: Connection, table: Table, account: str | None, **where: Any) -> dict[str, Any] | None:
    """Return the visible resource of ``account`` that has these values, or None."""
    row = connection.execute(_finding(table, tuple(where)), {"account": account, **where}).one_or_none()
    return None if row is None else document(row)


@cache  # composing a statement takes longer than executing it
def _finding(table: Table, names: tuple[str, ...]) -> sa.Select[Any]:
    own = sa.select(table).where(table.c.account_id == sa.bindparam("account"), table.c.seq.is_not(None))
    return own.where(*(table.c[name] == sa.bindparam(name) for name in names))


_SPENDING: Final = (
    ACCOUNTS.update()
    .where(ACCOUNTS.c.id == sa.bindparam("account"), ACCOUNTS.c.nano >= sa.bindparam("amount"))
    .values(nano=ACCOUNTS.c.nano - sa.bindparam("amount"))
)


def spend(connection: Connection, account: str, nano: int) -> bool:
    """Take an amount from an account's wallet; return False, and take nothing, if it holds less."""
    return connection.execute(_SPENDING, {"account": account, "amount": nano}).rowcount == 1


def add(connection: Connection, table: Table, account: str | None, values: Mapping[str, Any]) -> None:
    """Insert a resource that is not visible yet."""
    connection.execute(table.insert().values(account_id=account, **values))


def publish(connection: Connection, table: Table, id: str) -> bool:
    """Make a resource visible, as the newest one; return False if it has been deleted."""
    following = connection.scalar(COUNTER.update().values(last=COUNTER.c.last + 1).returning(COUNTER.c.last))
    return connection.execute(table.update().where(table.c.id == id).values(seq=following)).rowcount == 1
