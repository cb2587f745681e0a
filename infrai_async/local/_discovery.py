"""``discovery``: the table, described (CONTRACT.md 1.11). Public, free and without an envelope."""

from __future__ import annotations

from sqlalchemy import Connection

from infrai_async.capabilities import CAPABILITIES, Param
from infrai_async.local._envelope import VENDOR, dollars
from infrai_async.local._refusal import not_found
from infrai_async.local._routes import Row
from infrai_async.local._service import Call, Data, iso, price_of, serves

_SCHEMAS: dict[str, Data] = {
    "json": {},
    "strings": {"type": "array", "items": {"type": "string"}},
    "objects": {"type": "array", "items": {"type": "object"}},
}
_COMMON_ERRORS = {
    "VALIDATION_ERROR": 400,
    "UNAUTHORIZED": 401,
    "INSUFFICIENT_CREDIT": 402,
    "IDEMPOTENCY_KEY_REUSED": 409,
    "RATE_LIMITED": 429,
    "INTERNAL_ERROR": 500,
    "VENDOR_UNAVAILABLE": 503,
}


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


def _schema(param: Param) -> Data:
    schema = dict(_SCHEMAS.get(param.kind, {"type": param.kind}))
    if param.choices:
        schema["enum"] = list(param.choices)
    if param.bounds:
        schema["minimum"], schema["maximum"] = param.bounds
    return schema


def _request_schema(row: Row) -> Data:
    params = row.routes[0].params
    return {
        "type": "object",
        "properties": {param.wire: _schema(param) for param in params},
        "required": [param.wire for param in params if param.required],
    }


def _curl(call: Call, row: Row) -> str:
    auth = "" if row.public else " -H 'Authorization: Bearer '\"$INFRAI_API_KEY\""
    return f"curl -X {row.method} '{call.parts.base_url}{row.routes[0].path}'{auth}"


@serves("discovery.list")
def list_capabilities(call: Call, _: Connection) -> Data:
    rows = [_summary(call, row) for row in CAPABILITIES.values()]
    return {"version": "v1", "generated_at": iso(call.now), "capabilities": rows}


@serves("discovery.get")
def get_capability(call: Call, _: Connection) -> Data:
    row = CAPABILITIES.get(call.params["capability"])
    if row is None:
        raise not_found("CAPABILITY", call.params["capability"])
    ready = _summary(call, row)["available"]
    return _summary(call, row) | {
        "parameters": [
            {"name": param.wire, "in": param.where, "required": param.required} | _schema(param)
            for param in row.routes[0].params
        ],
        "paths": [route.path for route in row.routes],
        "request": _request_schema(row),
        "response": {"type": row.returns.__name__, "paged": row.paged, "enveloped": not row.bare},
        "errors": [
            {"code": code, "status": status, "retryable": status == 429 or status >= 500}
            for code, status in _COMMON_ERRORS.items()
        ],
        "examples": {"curl": _curl(call, row)},
        "vendors_ready": [VENDOR] if ready else [],
        "vendors_pending": [] if ready else [VENDOR],
        "default_vendor": VENDOR,
        "key_status": "none" if row.public else "required",
        "idempotent": row.mutates,
    }
