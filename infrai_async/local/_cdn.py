"""``cdn``: distributions and their figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from infrai_async.local._paging import list_page
from infrai_async.local._refusal import invalid
from infrai_async.local._service import Call, Data, Parts, check_name, existing, iso, new_id, serves
from infrai_async.local._state import DISTRIBUTIONS, TRAFFIC, add, arrive

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


def edge_hostname(id: str) -> str:
    """Return the host name under which a distribution is served."""
    return f"{id.replace('_', '-')}.edge.localhost"


def _with_addresses(parts: Parts, data: Data) -> Data:
    id = data["id"]
    return {name: value for name, value in data.items() if name != "id"} | {
        "distribution_id": id,
        "status": "deployed" if data["enabled"] else "disabled",
        "edge_url": f"{parts.base_url}/edge/{id}",
        "edge_hostname": edge_hostname(id),
    }


def _items_with_addresses(parts: Parts, page: Data) -> Data:
    return page | {"items": [_with_addresses(parts, item) for item in page["items"]]}


def _settings(call: Call) -> Data:
    settings = call.given(*_SETTINGS)
    seconds = settings.get("cache_ttl_seconds", 0)
    if seconds < 0 or seconds != int(seconds):
        raise invalid("cache_ttl_seconds has to be a whole number of seconds", cache_ttl_seconds="0 or more, whole")
    if "cache_ttl_seconds" in settings:
        settings["cache_ttl_seconds"] = int(seconds)
    if "domain" in settings:
        check_name("domain", settings["domain"])
    return settings


def _find(call: Call, connection: Connection) -> Data:
    return existing(call, connection, DISTRIBUTIONS, "CDN_DISTRIBUTION", id=call.params["distribution_id"])


@serves("cdn.distribution.create", present=_with_addresses)
def create_distribution(call: Call, connection: Connection) -> Data:
    distribution = {"id": new_id("dst")} | _DEFAULTS | _settings(call) | {"created_at": iso(call.now)}
    add(connection, DISTRIBUTIONS, call.account, distribution)
    arrive(connection, DISTRIBUTIONS, str(distribution["id"]))
    return distribution


@serves("cdn.distribution.get", present=_with_addresses)
def get_distribution(call: Call, connection: Connection) -> Data:
    return _find(call, connection)


@serves("cdn.distribution.list", present=_items_with_addresses)
def list_distributions(call: Call, connection: Connection) -> Data:
    return list_page(call, connection, DISTRIBUTIONS)


@serves("cdn.distribution.update", present=_with_addresses)
def update_distribution(call: Call, connection: Connection) -> Data:
    before, settings = _find(call, connection), _settings(call)
    if settings:
        connection.execute(DISTRIBUTIONS.update().where(DISTRIBUTIONS.c.id == before["id"]).values(settings))
    return before | settings


@serves("cdn.distribution.delete")
def delete_distribution(call: Call, connection: Connection) -> Data:
    id = _find(call, connection)["id"]
    connection.execute(TRAFFIC.delete().where(TRAFFIC.c.distribution_id == id))
    connection.execute(DISTRIBUTIONS.delete().where(DISTRIBUTIONS.c.id == id))
    return {"ok": True}


@serves("cdn.cache.purge")
def purge(call: Call, connection: Connection) -> Data:
    """Purge: as long as no edge caches anything, nothing is there to be thrown away."""
    _find(call, connection)
    return {"ok": True, "purge_id": new_id("prg")}


def _minute(call: Call, name: str) -> int | None:
    text = call.params.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp()) // 60
    except (ValueError, OverflowError):
        field = name.rstrip("_")
        raise invalid(f"{field} has to be a time", **{field: "an ISO 8601 time"}) from None


@serves("cdn.cache.stats")
def stats(call: Call, connection: Connection) -> Data:
    """Sum what the edge counted, minute by minute, from ``from`` up to and without ``to``."""
    where: list[sa.ColumnElement[bool]] = [DISTRIBUTIONS.c.account_id == call.account]
    if "distribution_id" in call.params:
        where.append(DISTRIBUTIONS.c.id == _find(call, connection)["id"])
    start, end = _minute(call, "from_"), _minute(call, "to")
    where += [TRAFFIC.c.minute >= start] if start is not None else []
    where += [TRAFFIC.c.minute < end] if end is not None else []
    counted: list[Any] = [sa.func.coalesce(sa.func.sum(TRAFFIC.c[name]), 0) for name in _COUNTED]
    joined = TRAFFIC.join(DISTRIBUTIONS, TRAFFIC.c.distribution_id == DISTRIBUTIONS.c.id)
    hits, misses, served = tuple(connection.execute(sa.select(*counted).select_from(joined).where(*where)).one())
    requests = hits + misses
    ratio = hits / requests if requests else 0.0
    return {"requests": requests, "bytes_served": served, "hit_ratio": ratio, "hits": hits, "misses": misses}


_COUNTED = ("hits", "misses", "bytes_served")
