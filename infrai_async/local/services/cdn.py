"""The ``cdn`` service: distributions, purges of their cache, and their traffic statistics."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil, floor
from typing import Any
from urllib.parse import unquote

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._errors import invalid
from infrai_async.local.services.base import (
    Data,
    ServiceCall,
    ServiceContext,
    capability,
    check_name,
    existing,
    iso,
    new_id,
)
from infrai_async.local.services.pagination import list_page
from infrai_async.local.state.tables import COUNTED, DISTRIBUTIONS, PURGES, TRAFFIC, add, document, publish

_SETTINGS = (
    "origin",
    "domain",
    "enabled",
    "cache_ttl_seconds",
    "allowed_methods",
    "https_only",
    "tags",
    "vendor",
)
_DEFAULTS = {
    "domain": None,
    "enabled": True,
    "cache_ttl_seconds": 3600,
    "allowed_methods": ["GET", "HEAD"],
    "https_only": False,
    "tags": [],
    "vendor": "local",
}
_PURGES = 100
"""The number of purges recorded per distribution; an edge that missed more than these drops its whole cache."""


def _beginnings(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple("/" + unquote(path).removeprefix("/").removesuffix("*") for path in paths)


@attrs.frozen
class Purge:
    """The cached responses of a distribution to remove.

    Attributes:
        paths: path prefixes, with or without a star at the end.
        tags: tags of responses, or of the distribution itself, which stand for all of its responses.
        everything: whether to remove all responses.
    """

    paths: tuple[str, ...] = attrs.field(default=(), converter=_beginnings)
    tags: frozenset[str] = frozenset()
    everything: bool = False

    def hits(self, target: str, tags: frozenset[str]) -> bool:
        """Return whether the purge concerns a response, given its path and query as requested and its tags."""
        if self.everything or not self.tags.isdisjoint(tags):
            return True
        return unquote(target).startswith(self.paths)


def edge_hostname(id: str) -> str:
    """Return the host name of a distribution."""
    return f"{id.replace('_', '-')}.edge.localhost"


def id_of_edge(hostname: str) -> str:
    """Return the id of the distribution with a host name."""
    return hostname.partition(".")[0].replace("-", "_")


def read_for_edge(id: str, connection: Connection) -> tuple[Data | None, int, list[tuple[int, Purge]]]:
    """Return a distribution (None if it does not exist), the number of its last purge, and its recorded purges."""
    there = sa.select(DISTRIBUTIONS).where(DISTRIBUTIONS.c.id == id, DISTRIBUTIONS.c.seq.is_not(None))
    row = connection.execute(there).one_or_none()
    numbered = sa.select(PURGES.c.generation, PURGES.c.selectors).where(PURGES.c.distribution_id == id)
    found = connection.execute(numbered.order_by(PURGES.c.generation)).all()
    purges = [(number, Purge(of["paths"], frozenset(of["tags"]), of["everything"])) for number, of in found]
    return None if row is None else document(row), purges[-1][0] if purges else 0, purges


def _with_addresses(context: ServiceContext, data: Data) -> Data:
    id = data["id"]
    return {name: value for name, value in data.items() if name != "id"} | {
        "distribution_id": id,
        "status": "deployed" if data["enabled"] else "disabled",
        "edge_url": f"{context.base_url}/edge/{id}",
        "edge_hostname": edge_hostname(id),
    }


def _changed(context: ServiceContext, data: Data) -> Data:
    """Invalidate what the edge knows about a distribution.

    This happens after the change is durable and before the caller gets the response, so a request that follows the
    response cannot be served with the old settings.
    """
    context.edge_changed(data["id"])
    return data


def _changed_with_addresses(context: ServiceContext, data: Data) -> Data:
    return _with_addresses(context, _changed(context, data))


def _done(context: ServiceContext, data: Data) -> Data:
    return {name: value for name, value in _changed(context, data).items() if name != "id"}


def _items_with_addresses(context: ServiceContext, page: Data) -> Data:
    return page | {"items": [_with_addresses(context, item) for item in page["items"]]}


def _settings(call: ServiceCall) -> Data:
    settings = call.given(*_SETTINGS)
    seconds = settings.get("cache_ttl_seconds", 0)
    if seconds < 0 or seconds != int(seconds):
        raise invalid("cache_ttl_seconds must be a whole number, 0 or more", cache_ttl_seconds="0 or more, whole")
    if "cache_ttl_seconds" in settings:
        settings["cache_ttl_seconds"] = int(seconds)
    if "domain" in settings:
        check_name("domain", settings["domain"])
    return settings


def _find(call: ServiceCall, connection: Connection) -> Data:
    return existing(call, connection, DISTRIBUTIONS, "CDN_DISTRIBUTION", id=call.params["distribution_id"])


@capability("cdn.distribution.create", present=_with_addresses)
def create_distribution(call: ServiceCall, connection: Connection) -> Data:
    """Create a distribution."""
    distribution = {"id": new_id("dst")} | _DEFAULTS | _settings(call) | {"created_at": iso(call.now)}
    add(connection, DISTRIBUTIONS, call.account, distribution)
    publish(connection, DISTRIBUTIONS, str(distribution["id"]))
    return distribution


@capability("cdn.distribution.get", present=_with_addresses)
def get_distribution(call: ServiceCall, connection: Connection) -> Data:
    """Return a distribution."""
    return _find(call, connection)


@capability("cdn.distribution.list", present=_items_with_addresses)
def list_distributions(call: ServiceCall, connection: Connection) -> Data:
    """Return a page of distributions."""
    return list_page(call, connection, DISTRIBUTIONS)


@capability("cdn.distribution.update", present=_changed_with_addresses)
def update_distribution(call: ServiceCall, connection: Connection) -> Data:
    """Update the given settings of a distribution."""
    before, settings = _find(call, connection), _settings(call)
    if settings:
        connection.execute(DISTRIBUTIONS.update().where(DISTRIBUTIONS.c.id == before["id"]).values(settings))
    return before | settings


@capability("cdn.distribution.delete", present=_done)
def delete_distribution(call: ServiceCall, connection: Connection) -> Data:
    """Delete a distribution with its purges and statistics."""
    id = _find(call, connection)["id"]
    for table in (TRAFFIC, PURGES):
        connection.execute(table.delete().where(table.c.distribution_id == id))
    connection.execute(DISTRIBUTIONS.delete().where(DISTRIBUTIONS.c.id == id))
    return {"ok": True, "id": id}


@capability("cdn.cache.purge", present=_done)
def purge(call: ServiceCall, connection: Connection) -> Data:
    """Record a numbered purge, unless it selects nothing; each edge carries out the purges that are new to it."""
    distribution = _find(call, connection)
    id = distribution["id"]
    selectors = {
        "paths": [_path_in(distribution, path) for path in call.params.get("paths", ())],
        "tags": list(call.params.get("tags", ())),
        "everything": call.params.get("purge_everything", False),
    }
    if any(selectors.values()):
        purges = PURGES.c.distribution_id == id
        number = (connection.scalar(sa.select(sa.func.max(PURGES.c.generation)).where(purges)) or 0) + 1
        connection.execute(PURGES.insert().values(distribution_id=id, generation=number, selectors=selectors))
        connection.execute(PURGES.delete().where(purges, PURGES.c.generation <= number - _PURGES))
    return {"ok": True, "purge_id": new_id("prg"), "id": id}


def _path_in(distribution: Data, path: str) -> str:
    """Return the path within a distribution, given as a path or as a URL of its edge or origin."""
    if "://" not in path:
        return path
    origin = distribution["origin"].rstrip("/")
    if path.startswith(f"{origin}/"):
        return path.removeprefix(origin)
    return "/" + path.partition("://")[2].partition("/")[2].removeprefix(f"edge/{distribution['id']}").removeprefix("/")


def _minute(call: ServiceCall, name: str) -> float | None:
    """Return a parameter's time in minutes since the epoch."""
    text = call.params.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return moment.timestamp() / 60
    except (ValueError, OverflowError):
        field = name.rstrip("_")
        raise invalid(f"{field} must be an ISO 8601 time", **{field: "an ISO 8601 time"}) from None


@capability("cdn.cache.stats", before=lambda context: context.count_traffic())
def stats(call: ServiceCall, connection: Connection) -> Data:
    """Sum the edge's counters over all minutes that overlap the time from ``from`` to ``to``."""
    where: list[sa.ColumnElement[bool]] = [DISTRIBUTIONS.c.account_id == call.account]
    if "distribution_id" in call.params:
        where.append(DISTRIBUTIONS.c.id == _find(call, connection)["id"])
    start, end = _minute(call, "from_"), _minute(call, "to")
    where += [TRAFFIC.c.minute >= floor(start)] if start is not None else []
    where += [TRAFFIC.c.minute < ceil(end)] if end is not None else []
    counted: list[Any] = [sa.func.coalesce(sa.func.sum(TRAFFIC.c[name]), 0) for name in COUNTED]
    joined = TRAFFIC.join(DISTRIBUTIONS, TRAFFIC.c.distribution_id == DISTRIBUTIONS.c.id)
    hits, misses, served = tuple(connection.execute(sa.select(*counted).select_from(joined).where(*where)).one())
    requests = hits + misses
    ratio = hits / requests if requests else 0.0
    return {"requests": requests, "bytes_served": served, "hit_ratio": ratio, "hits": hits, "misses": misses}
