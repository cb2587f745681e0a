"""Every capability of the contract, called through its method, leaves the machine as the contract says.

The expectations come from ``capabilities.json`` and the seed documents, never from the package's own table.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import pytest
from support.oracle import Oracle, Reply, Seen, answer

from infrai_async import AsyncInfrai, DecodeError, Infrai, RetryPolicy

CONTRACT = Path(__file__).parent.parent / "contract"
KEY = "ifr_pk_proj_test"
ALSO_KNOWN = {"account.balance", "discovery.list"}
ROWS: dict[str, dict[str, Any]] = {
    row["id"]: row
    for row in json.loads((CONTRACT / "capabilities.json").read_text())
    if row["tier"] == "seed" or row["id"] in ALSO_KNOWN
}
KEYLESS = {"discovery.list", "discovery.get", "account.activate"}
IN_BODY_TOO = {"flags.toggle": "key", "flags.rollout": "key", "db.snapshot.restore": "snapshot_id"}
ONLY_CURRENT = {"name", "op", "content_type", "max_bytes", "response_disposition"}
ONLY_CURRENT_CARRIES = ONLY_CURRENT - {"name", "op"}
SAMPLES: dict[str, Any] = {
    "string": "a/b ü?",
    "number": 12,
    "boolean": True,
    "string[]": ["x", "ü"],
    "unknown": {"deep": [None, 1.5]},
    "Record<string,unknown>": {"plan": "pro", "n": 1},
    "Record<string,string>": {"team": "web"},
    "FlagRule[]": [{"attribute": "plan", "operator": "eq", "value": "pro", "serve": True}],
    "RolloutConfig": {"percentage": 5, "salt": "s", "sticky_unit": "user_id"},
    "Variant[]": [{"key": "a", "value": 1, "weight": 1}],
}


def sample(param: dict[str, Any]) -> Any:
    if param["name"] == "idempotency_key":
        return "key of mine"
    if param["type"].startswith("'"):
        return param["type"].split("|")[0].strip("'")
    return SAMPLES[param["type"]]


def public_arguments(row: dict[str, Any]) -> dict[str, Any]:
    """Every parameter that the documentation names, by its public name (D12, D20)."""
    arguments = {}
    for param in row["params"]:
        name = param["name"]
        if name in {"op", "amount"} or (name == "name" and row["id"] == "storage.bucket.create"):
            continue  # the wire's other names for ``method``, ``amount_usd`` and ``bucket``
        if name == IN_BODY_TOO.get(row["id"]) and param["in"] == "body":
            continue  # the path's value again
        if param["in"] == "client":
            arguments[name] = False
        else:
            arguments["from_" if name == "from" else name] = sample(param)
    return arguments


def expected_path(template: str, row: dict[str, Any]) -> str:
    values = {p["name"]: quote(sample(p), safe="") for p in row["params"] if "{" + p["name"] + "}" in template}
    return re.sub(r"\{(\w+)\}", lambda match: values[match[1]], template)


def expected_body(row: dict[str, Any], *, current: bool) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for param in row["params"]:
        if param["in"] == "body":
            body[param["name"]] = sample(param)
    if row["id"] == "storage.bucket.create":
        body.pop("bucket" if current else "name")
        if current:
            body["name"] = SAMPLES["string"]
    if row["id"] == "storage.object.presign":
        if current:
            body.pop("method")
            body["op"] = "get"
        else:
            body = {name: value for name, value in body.items() if name not in ONLY_CURRENT}
    if row["id"] == "account.topup":
        body["amount"] = body["amount_usd"]
    if row["id"] in IN_BODY_TOO:
        body[IN_BODY_TOO[row["id"]]] = SAMPLES["string"]
    return body


def begin(client: Any, capability: str, arguments: dict[str, Any], *, by_id: bool) -> Any:
    if by_id:
        return client.call(capability, arguments)
    target = client
    for name in capability.split("."):
        target = getattr(target, name)
    result = target(**arguments)
    return result.page() if hasattr(result, "page") else result


def capture(
    capability: str, arguments: dict[str, Any], reply: Any = None, *, face: Any = AsyncInfrai, by_id: bool = False
) -> list[Seen]:
    """Call a method with every argument; the answer does not matter here, what left the machine does."""

    async def main(url: str) -> None:
        async with AsyncInfrai(KEY, base_url=url, retry=RetryPolicy.none()) as client:
            await begin(client, capability, arguments, by_id=by_id)

    with Oracle(reply or (lambda seen: answer({}))) as oracle, contextlib.suppress(DecodeError):  # ``{}`` is no project
        if face is Infrai:
            with Infrai(KEY, base_url=oracle.url, retry=RetryPolicy.none()) as client:
                begin(client, capability, arguments, by_id=by_id)
        else:
            asyncio.run(main(oracle.url))
    return oracle.seen


def without_what_the_current_route_alone_carries(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in ONLY_CURRENT_CARRIES}


def check(seen: Seen, row: dict[str, Any], method: str, path: str, body: dict[str, Any] | None) -> None:
    assert seen.method == method
    assert seen.path == path
    assert ("authorization" in seen.headers) == (row["id"] not in KEYLESS)
    if row["id"] not in KEYLESS:
        assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert ("idempotency-key" in seen.headers) == row["mutating"]
    if body is None:
        assert seen.body == b""
        assert "content-type" not in seen.headers
    else:
        assert seen.headers["content-type"] == "application/json"
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
        assert seen.body.decode() == canonical


@pytest.mark.parametrize("capability", sorted(ROWS))
def test_a_call_leaves_as_its_table_says(capability: str) -> None:
    row = ROWS[capability]
    (seen,) = capture(capability, without_what_the_current_route_alone_carries(public_arguments(row)))
    body = expected_body(row, current=False) if row["method"] in {"POST", "PATCH", "PUT"} else None
    check(seen, row, row["method"], expected_path(row["path"], row), body)
    if "idempotency_key" in public_arguments(row):
        assert seen.headers["idempotency-key"] == "key of mine"


@pytest.mark.parametrize(
    "capability", sorted(i for i, r in ROWS.items() if any(p["in"] == "query" for p in r["params"]))
)
def test_a_query_carries_each_documented_parameter_once(capability: str) -> None:
    row = ROWS[capability]
    (seen,) = capture(capability, public_arguments(row))
    pairs = [pair.partition("=") for pair in seen.target.partition("?")[2].split("&")]
    carried = {name: unquote(value) for name, _, value in pairs}
    assert len(carried) == len(pairs)
    expected = {}
    for param in row["params"]:
        if param["in"] == "query":
            value = sample(param)
            expected[param["name"]] = (
                value if isinstance(value, str) else json.dumps(value, sort_keys=True, separators=(",", ":"))
            )
    assert carried == expected


@pytest.mark.parametrize("capability", sorted(i for i, r in ROWS.items() if "current_path" in r))
def test_storage_moves_to_the_running_services_routes_with_the_same_key(capability: str) -> None:
    row = ROWS[capability]

    def reply(seen: Seen) -> Reply:
        return Reply(status=404, body=b"404 page not found") if "/buckets" in seen.path else answer({})

    first, second = capture(capability, without_what_the_current_route_alone_carries(public_arguments(row)), reply)
    assert first.path == expected_path(row["path"], row)
    body = expected_body(row, current=True) if row["method"] == "POST" else None
    if row["id"] == "storage.object.presign":
        body = without_what_the_current_route_alone_carries(body or {})
    check(second, row, row["current_method"], expected_path(row["current_path"], row), body)
    assert first.headers.get("idempotency-key") == second.headers.get("idempotency-key")


@pytest.mark.parametrize("capability", sorted(i for i, r in ROWS.items() if "current_path" in r))
@pytest.mark.parametrize("by_id", [False, True], ids=["method", "call"])
@pytest.mark.parametrize("face", [AsyncInfrai, Infrai])
def test_every_argument_arrives_whatever_the_way_to_call(face: Any, by_id: bool, capability: str) -> None:
    row = ROWS[capability]
    current = any(param["name"] in ONLY_CURRENT_CARRIES for param in row["params"])
    arguments = public_arguments(row)
    (seen,) = capture(capability, arguments, face=face, by_id=by_id)
    body = expected_body(row, current=current) if row["method"] == "POST" else None
    check(seen, row, row["method"], expected_path(row["current_path" if current else "path"], row), body)


# --- the seeds' own curl lines -----------------------------------------------------------------------------------

CURL = re.compile(r"curl -X (\w+) https://api\.infrai\.cc(\S+) \\\n((?:  -[Hd] .*\n?)+)")


def curl_lines() -> list[Any]:
    found = {}
    for name in ("001_35aec4524093bf63", "003_139e4d7012832a94", "004_f1043c6cd8005660"):
        for method, path, rest in CURL.findall((CONTRACT / "seeds" / f"{name}.txt").read_text(encoding="utf-8")):
            body = re.search(r"-d '(.*)'", rest)
            found[(method, path)] = pytest.param(method, path, rest, body and body[1], id=f"{method} {path}")
    return list(found.values())


def test_the_seeds_hold_a_curl_line_for_each_capability_of_db_cdn_and_flags() -> None:
    assert len(curl_lines()) == 12 + 7 + 9


@pytest.mark.parametrize(("method", "path", "headers", "body"), curl_lines())
def test_a_call_leaves_as_the_seeds_curl_line_does(method: str, path: str, headers: str, body: str | None) -> None:
    (row,) = [row for row in ROWS.values() if row["method"] == method and _matches(row["path"], path)]
    names = re.findall(r"\{(\w+)\}", row["path"])
    placeholders = path.split("/")[-len(names) :] if names else []
    sent = json.loads(body) if body else {}
    if row["id"] == "flags.rollout":  # flat, as its table says (D6)
        sent = {"key": sent["key"], **sent["rollout"], "version": 3}
    repeated = IN_BODY_TOO.get(row["id"])
    if repeated:
        sent[repeated] = placeholders[0]  # one value in both places
    arguments = {**dict(zip(names, placeholders, strict=True)), **{k: v for k, v in sent.items() if k != repeated}}
    (seen,) = capture(row["id"], arguments)
    assert (seen.method, seen.target) == (method, path)
    assert ("content-type" in seen.headers) == ("Content-Type: application/json" in headers)
    assert seen.headers["authorization"].startswith("Bearer ")
    assert (json.loads(seen.body) if seen.body else None) == (sent if body else None)


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None
