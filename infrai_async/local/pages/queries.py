"""What the dashboard shows of the state: the newest things of each kind that one account has, read in one job."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection, Table

from infrai_async.local._errors import not_found
from infrai_async.local.postgres.databases import Postgres
from infrai_async.local.services.account import open_checkout
from infrai_async.local.services.base import ServiceContext
from infrai_async.local.services.cdn import edge_hostname
from infrai_async.local.state.keyring import FIRST_ACCOUNT
from infrai_async.local.state.tables import (
    ACCOUNTS,
    BRANCHES,
    BUCKETS,
    COUNTED,
    DISTRIBUTIONS,
    FLAGS,
    OBJECTS,
    PROJECTS,
    SNAPSHOTS,
    TRAFFIC,
    document,
)
from infrai_async.models import mask_uri

Item: TypeAlias = Mapping[str, Any]
_Select: TypeAlias = sa.Select[*tuple[Any, ...]]
_MOST: Final = 100
_COUNTED: Final = 10_000
"""Where counting ends, so that nobody waits for the exact number of very many things."""


@attrs.frozen
class Listing:
    """Some things, the newest first, and how many there are in total."""

    items: Sequence[Item]
    total: int

    @property
    def more(self) -> int:
        """How many there are besides the items."""
        return self.total - len(self.items)

    @property
    def is_exact(self) -> bool:
        """Whether the total is exact; otherwise there may be more."""
        return self.total < _COUNTED


@attrs.frozen(kw_only=True)
class Overview:
    """What one account has.

    The items are rows of the state, with what the page shows besides: the account has the address of its
    ``checkout``; projects have a listing of their ``branches`` and a number of ``snapshots``; projects and branches
    have a ``uri``; buckets have their ``objects`` and ``bytes``; distributions have the host name of their ``edge``
    and what it counted.
    """

    account: Item
    accounts: Listing
    projects: Listing
    buckets: Listing
    distributions: Listing
    flags: Listing


def read(connection: Connection, context: ServiceContext, account: str | None) -> Overview:
    """Return what an account has, by default the first one.

    Raises:
        RequestRefused: 404, if there is no such account.
    """
    id = FIRST_ACCOUNT if account is None else account
    chosen = connection.execute(sa.select(*_SHOWN).where(ACCOUNTS.c.id == id)).one_or_none()
    if chosen is None:
        raise not_found("ACCOUNT", id)
    return Overview(
        account={**chosen._asdict(), "checkout": open_checkout(context, id, connection)},
        accounts=_accounts(connection),
        projects=_projects(connection, id, context.postgres),
        buckets=_buckets(connection, id),
        distributions=_distributions(connection, id),
        flags=_newest(connection, FLAGS, id),
    )


_SHOWN: Final = (ACCOUNTS.c.id, ACCOUNTS.c.nano, ACCOUNTS.c.created_at)


def _accounts(connection: Connection) -> Listing:
    newest = sa.select(*_SHOWN).order_by(ACCOUNTS.c.id != FIRST_ACCOUNT, ACCOUNTS.c.created_at.desc(), ACCOUNTS.c.id)
    return _listing(connection, newest, sa.select(ACCOUNTS.c.id))


def _newest(connection: Connection, table: Table, account: str) -> Listing:
    there = (table.c.account_id == account, table.c.seq.is_not(None))
    newest = sa.select(table).where(*there).order_by(table.c.seq.desc())
    return _listing(connection, newest, sa.select(table.c.seq).where(*there))


def _listing(connection: Connection, query: _Select, all_of_it: _Select) -> Listing:
    items = [document(row) for row in connection.execute(query.limit(_MOST))]
    if len(items) < _MOST:
        return Listing(items, len(items))
    counted = sa.select(sa.func.count()).select_from(all_of_it.limit(_COUNTED).subquery())
    return Listing(items, connection.execute(counted).scalar_one())


def _projects(connection: Connection, account: str, postgres: Postgres | None) -> Listing:
    projects = _with_uris(_newest(connection, PROJECTS, account), postgres)
    branches = _with_uris(_newest(connection, BRANCHES, account), postgres)
    ids = _ids(projects)
    forks = _counted(connection, BRANCHES.c.project_id, ids)
    snapshots = _counted(connection, SNAPSHOTS.c.project_id, ids)

    def whole(project: Item) -> Item:
        own = [branch for branch in branches.items if branch["project_id"] == project["id"]]
        id = project["id"]
        return {**project, "branches": Listing(own, forks.get(id, 0)), "snapshots": snapshots.get(id, 0)}

    return attrs.evolve(projects, items=[whole(project) for project in projects.items])


def _with_uris(databases: Listing, postgres: Postgres | None) -> Listing:
    """Add to each database its address, with the password masked; without Postgres it has none."""

    def uri(item: Item) -> str | None:
        return None if postgres is None else mask_uri(postgres.uri(item["database"], ""))

    return attrs.evolve(databases, items=[{**item, "uri": uri(item)} for item in databases.items])


def _buckets(connection: Connection, account: str) -> Listing:
    buckets = _newest(connection, BUCKETS, account)
    id = OBJECTS.c.bucket_id
    sums = (sa.func.count().label("objects"), sa.func.sum(OBJECTS.c.size).label("bytes"))
    return _with_sums(connection, buckets, id, *sums)


def _distributions(connection: Connection, account: str) -> Listing:
    found = _newest(connection, DISTRIBUTIONS, account)
    distributions = attrs.evolve(found, items=[{**item, "edge": edge_hostname(item["id"])} for item in found.items])
    sums = (sa.func.sum(TRAFFIC.c[name]).label(name) for name in COUNTED)
    return _with_sums(connection, distributions, TRAFFIC.c.distribution_id, *sums)


def _with_sums(connection: Connection, listing: Listing, parent: sa.Column[Any], *sums: sa.Label[Any]) -> Listing:
    """Add to each item the sums over the rows that refer to it, which are 0 if there are none."""
    query = sa.select(parent.label("id"), *sums).where(parent.in_(_ids(listing))).group_by(parent)
    found = {row.id: row._asdict() for row in connection.execute(query)}
    none = {sum.name: 0 for sum in sums}
    return attrs.evolve(listing, items=[{**item, **found.get(item["id"], none)} for item in listing.items])


def _ids(listing: Listing) -> list[str]:
    return [item["id"] for item in listing.items]


def _counted(connection: Connection, parent: sa.Column[Any], ids: Iterable[str]) -> dict[str, int]:
    """Return how many visible rows refer to each of ``ids``."""
    there = (parent.in_(ids), parent.table.c.seq.is_not(None))
    rows = connection.execute(sa.select(parent, sa.func.count()).where(*there).group_by(parent))
    return {str(row[0]): int(row[1]) for row in rows}
