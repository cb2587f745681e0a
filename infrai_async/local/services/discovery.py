"""The ``discovery`` service: descriptions of all capabilities, generated from the capability table.

It is public, free and answers without an envelope (CONTRACT.md 1.11).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import Connection

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local._errors import not_found
from infrai_async.local.http.envelope import VENDOR, dollars
from infrai_async.local.http.router import Row
from infrai_async.local.services.base import Data, ServiceCall, capability, iso, price_of
from infrai_async.local.services.json_schema import curl, of_request, of_response, parameters_of

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


def _errors(capability: Row) -> Iterator[tuple[str, int]]:
    """Yield the error codes, with their statuses, that a call of this capability can get."""
    if capability.params or capability.mutates:
        yield "VALIDATION_ERROR", 400
    if not capability.public:
        yield "UNAUTHORIZED", 401
    if price_of(capability):
        yield "INSUFFICIENT_CREDIT", 402
    if any(param.where == "path" for param in capability.params.values()):
        yield next(code for prefix, code in _NOT_FOUND.items() if capability.id.startswith(prefix)), 404
    if capability.id.startswith("flags.") and "version" in capability.params:
        yield "FLAG_VERSION_CONFLICT", 409
    if capability.mutates:
        yield "IDEMPOTENCY_KEY_REUSED", 409
    yield "RATE_LIMITED", 429
    yield "INTERNAL_ERROR", 500
    if capability.id.startswith("db.") or capability.id in _EVALUATING:
        yield "VENDOR_UNAVAILABLE", 503


def _billing(call: ServiceCall, capability: Row) -> Data:
    price = price_of(capability)
    return {
        "is_billable": price > 0,
        "free": price == 0,
        "unit": "call",
        "price_usd": dollars(price),
        "currency": "USD",
        "new_account_trial_uses": call.context.credit // price if price else None,
    }


def _summary(call: ServiceCall, capability: Row) -> Data:
    return {
        "id": capability.id,
        "method": capability.method,
        "path": capability.routes[-1].path,
        "available": not capability.id.startswith("db.") or call.context.postgres_missing is None,
        "regions": ["local"],
        "vendors": [VENDOR],
        "billing": _billing(call, capability),
    }


@capability("discovery.list")
def list_capabilities(call: ServiceCall, _: Connection) -> Data:
    """Return the index of all capabilities."""
    capabilities = [_summary(call, capability) for capability in CAPABILITIES.values()]
    return {"version": "v1", "generated_at": iso(call.now), "capabilities": capabilities}


@capability("discovery.get")
def get_capability(call: ServiceCall, _: Connection) -> Data:
    """Return the description of one capability."""
    capability = CAPABILITIES.get(call.params["capability"])
    if capability is None:
        raise not_found("DISCOVERY_CAPABILITY", call.params["capability"])
    summary = _summary(call, capability)
    ready = summary["available"]
    return summary | {
        "parameters": [
            {"name": name, "in": where, "required": required, "type": "any"} | schema
            for name, where, required, schema in parameters_of(capability)
        ],
        "paths": [route.path for route in capability.routes],
        "request": of_request(capability),
        "response": of_response(capability),
        "enveloped": not capability.bare,
        "errors": [
            {"code": code, "status": status, "retryable": status == 429 or status >= 500}
            for code, status in _errors(capability)
        ],
        "examples": {"curl": curl(capability, call.context.base_url)},
        "vendors_ready": [VENDOR] if ready else [],
        "vendors_pending": [] if ready else [VENDOR],
        "default_vendor": VENDOR,
        "key_status": "none" if capability.public else "required",
        "idempotent": True,  # writes too: the gateway deduplicates them by their key (D34)
    }
