"""``discovery``: the table, described (CONTRACT.md 1.11). Public, free and without an envelope."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local._errors import not_found
from infrai_async.local.http.envelope import VENDOR, dollars
from infrai_async.local.http.router import Row
from infrai_async.local.services.base import Call, Data, iso, price_of, serves
from infrai_async.local.services.json_schema import curl, of_param, of_request, of_response

_NOT_FOUND: Final = {
    "db.project.": "DB_PROJECT_NOT_FOUND",
    "db.branch.": "DB_BRANCH_NOT_FOUND",
    "db.snapshot.": "DB_SNAPSHOT_NOT_FOUND",
    "storage.": "STORAGE_BUCKET_NOT_FOUND",
    "cdn.": "CDN_DISTRIBUTION_NOT_FOUND",
    "flags.": "FLAG_NOT_FOUND",
    "discovery.": "DISCOVERY_CAPABILITY_NOT_FOUND",
}
_EVALUATING: Final = frozenset({"flags.is_enabled", "flags.get_value"})


def _errors(row: Row) -> Iterator[tuple[str, int]]:
    """Return the codes, with their statuses, that a call of this capability can meet."""
    if row.params or row.mutates:
        yield "VALIDATION_ERROR", 400
    if not row.public:
        yield "UNAUTHORIZED", 401
    if price_of(row):
        yield "INSUFFICIENT_CREDIT", 402
    if any(param.where == "path" for param in row.params.values()):
        yield next(code for prefix, code in _NOT_FOUND.items() if row.id.startswith(prefix)), 404
    if row.id.startswith("flags.") and "version" in row.params:
        yield "FLAG_VERSION_CONFLICT", 409
    if row.mutates:
        yield "IDEMPOTENCY_KEY_REUSED", 409
    yield "RATE_LIMITED", 429
    yield "INTERNAL_ERROR", 500
    if row.id.startswith("db.") or row.id in _EVALUATING:
        yield "VENDOR_UNAVAILABLE", 503


def _billing(call: Call, row: Row) -> Data:
    price = price_of(row)
    return {
        "is_billable": price > 0,
        "free": price == 0,
        "unit": "call",
        "price_usd": dollars(price),
        "currency": "USD",
        "new_account_trial_uses": call.parts.credit // price if price else None,
    }


def _summary(call: Call, row: Row) -> Data:
    return {
        "id": row.id,
        "method": row.method,
        "path": row.routes[0].path,
        "available": not row.id.startswith("db.") or call.parts.postgres_missing is None,
        "regions": ["local"],
        "vendors": [VENDOR],
        "billing": _billing(call, row),
    }


@serves("discovery.list")
def list_capabilities(call: Call, _: Connection) -> Data:
    rows = [_summary(call, row) for row in CAPABILITIES.values()]
    return {"version": "v1", "generated_at": iso(call.now), "capabilities": rows}


@serves("discovery.get")
def get_capability(call: Call, _: Connection) -> Data:
    row = CAPABILITIES.get(call.params["capability"])
    if row is None:
        raise not_found("DISCOVERY_CAPABILITY", call.params["capability"])
    summary = _summary(call, row)
    ready = summary["available"]
    return summary | {
        "parameters": [
            {"name": param.wire, "in": param.where, "required": param.required} | of_param(param)
            for param in row.routes[0].params
        ],
        "paths": [route.path for route in row.routes],
        "request": of_request(row),
        "response": of_response(row),
        "enveloped": not row.bare,
        "errors": [
            {"code": code, "status": status, "retryable": status == 429 or status >= 500}
            for code, status in _errors(row)
        ],
        "examples": {"curl": curl(row, call.parts.base_url)},
        "vendors_ready": [VENDOR] if ready else [],
        "vendors_pending": [] if ready else [VENDOR],
        "default_vendor": VENDOR,
        "key_status": "none" if row.public else "required",
        "idempotent": row.resendable,
    }
