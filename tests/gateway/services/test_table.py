"""The gateway holds the whole table: a service for every row, and every documented field in its answers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import attrs
import pytest

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local import _app
from infrai_async.local.services.base import SERVICES, price_of
from infrai_async.models import FlagValues

pytestmark = pytest.mark.anyio
DOCUMENTED = json.loads((Path(__file__).parents[2] / "contract" / "capabilities.json").read_text())


def test_every_row_has_a_service_and_every_service_a_row() -> None:
    assert set(SERVICES) == set(CAPABILITIES)
    modules = {module.__name__ for module in _app.SERVING}
    assert {service.run.__module__ for service in SERVICES.values()} == modules


def nullable(field: attrs.Attribute[Any]) -> bool:
    return "None" in str(field.type) or field.type == "JSON"


def missing(returns: Any, document: Any) -> list[str]:
    """Which of a model's fields an answer lacks, or leaves null where the model takes no null."""
    if issubclass(returns, FlagValues):
        return []
    fields = [field for field in attrs.fields(returns) if field.name not in ("extra", "metadata", "variant")]
    absent = [field.name for field in fields if field.name not in document]
    return absent + [field.name for field in fields if document.get(field.name, 0) is None and not nullable(field)]


async def answers(api: Any) -> dict[str, Any]:
    """Call every capability once and return what each answered."""
    got: dict[str, Any] = {}

    async def call(id: str, body: Any = None, query: str = "", /, **ids: str) -> Any:
        row = CAPABILITIES[id]
        path = row.routes[0].path.format(**ids) + query
        answer = await api.ask(row.method, path, body)
        assert answer.status == 200, (id, answer.text)
        got[id] = answer.document if row.bare else answer.data
        return got[id]

    project = await call("db.project.create", {"name": "p"})
    branch = await call("db.branch.create", {"project_id": project["id"], "branch_name": "b"})
    snapshot = await call("db.snapshot.create", {"project_id": project["id"]})
    await call("db.snapshot.restore", id=snapshot["id"])
    for thing, id in (("project", project["id"]), ("branch", branch["id"]), ("snapshot", snapshot["id"])):
        await call(f"db.{thing}.get", id=id)
        await call(f"db.{thing}.list")
    await call("db.branch.delete", id=branch["id"])
    await call("db.project.delete", id=project["id"])
    await call("storage.bucket.create", {"bucket": "b"})
    await call("storage.bucket.list")
    await call("storage.bucket.get", bucket="b")
    await call("storage.object.presign", {}, bucket="b", key="k")
    await call("storage.bucket.delete", bucket="b")
    id = (await call("cdn.distribution.create", {"origin": "..."}))["distribution_id"]
    await call("cdn.distribution.get", distribution_id=id)
    await call("cdn.distribution.list")
    await call("cdn.distribution.update", {"enabled": False}, distribution_id=id)
    await call("cdn.cache.purge", {"distribution_id": id})
    await call("cdn.cache.stats", None, f"?distribution_id={id}")
    await call("cdn.distribution.delete", distribution_id=id)
    await call("flags.set", {"key": "k"})
    await call("flags.toggle", {"enabled": True, "version": 1}, key="k")
    await call("flags.rollout", {"percentage": 5, "salt": "s", "sticky_unit": "user_id", "version": 2}, key="k")
    for verb in ("get", "get_value", "is_enabled"):
        await call(f"flags.{verb}", key="k")
    await call("flags.list")
    await call("flags.get_all")
    await call("flags.delete", key="k")
    await call("account.activate", {})
    await call("account.balance")
    await call("account.topup", {"amount_usd": 5})
    await call("discovery.list")
    await call("discovery.get", capability="flags.set")
    return got


async def test_every_answer_has_every_field_of_its_model(api: Any) -> None:
    got = await answers(api)
    # no object can have been put yet, so none can be deleted: test_storage holds its refusal
    assert set(CAPABILITIES) - set(got) == {"storage.object.delete"}
    for id, data in got.items():
        row = CAPABILITIES[id]
        items = data["items"] if row.paged else [data]
        assert items, id
        assert [missing(row.returns, item) for item in items] == [[]] * len(items), id


async def test_discovery_lists_the_table_without_key_envelope_or_price(api: Any) -> None:
    answer = await api.with_key(None).get("/v1/discovery")
    listed = {entry["id"]: entry for entry in answer.document["capabilities"]}
    assert answer.document["version"] == "v1"
    assert set(listed) == set(CAPABILITIES)
    for documented in DOCUMENTED:
        if documented["id"] in listed:
            entry = listed[documented["id"]]
            current = documented.get("current_path") or documented["path"]  # D31: public programs compare it
            assert (entry["method"], entry["path"]) == (documented["method"], current)
    assert all(entry["available"] for entry in listed.values())


async def test_discovery_bills_what_calls_cost(api: Any) -> None:
    entries = (await api.with_key(None).get("/v1/discovery")).document["capabilities"]
    for entry in entries:
        billing, price = entry["billing"], price_of(CAPABILITIES[entry["id"]])
        assert (billing["free"], billing["is_billable"]) == (price == 0, price > 0)
        assert round(billing["price_usd"] * 10**9) == price
    prices = {entry["id"]: entry["billing"]["price_usd"] for entry in entries}
    assert (prices["db.project.create"], prices["flags.set"], prices["flags.get"]) == (0.001, 0.0001, 0.00001)
    assert [prices[id] for id in ("discovery.list", "account.topup", "db.project.delete")] == [0, 0, 0]


async def test_one_capability_is_described_in_detail(api: Any) -> None:
    detail = (await api.with_key(None).get("/v1/discovery/flags.rollout")).document
    parameters = {parameter["name"]: parameter for parameter in detail["parameters"]}
    assert parameters["percentage"] == {
        "name": "percentage",
        "in": "body",
        "required": True,
        "type": "number",
        "minimum": 0,
        "maximum": 100,
    }
    assert "salt" in detail["request"]["required"]
    assert {"code": "RATE_LIMITED", "status": 429, "retryable": True} in detail["errors"]


async def test_answers_fit_the_schema_that_discovery_gives_of_them(api: Any) -> None:
    for id, answer in (await answers(api)).items():
        schema = (await api.with_key(None).get(f"/v1/discovery/{id}")).document["response"]
        assert misfits(schema, answer) == [], id


def misfits(schema: Any, value: Any) -> list[str]:
    """Hold a value to as much of JSON Schema as discovery uses."""
    if "anyOf" in schema:
        tries = [misfits(one, value) for one in schema["anyOf"]]
        return [] if [] in tries else tries[0]
    wanted = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", [])
    if wanted and not any(is_a(kind, value) for kind in wanted):
        return [f"{value!r} is no {wanted}"]
    if isinstance(value, list):
        return [misfit for item in value for misfit in misfits(schema.get("items", {}), item)]
    if not isinstance(value, dict):
        return []
    known = schema.get("properties", {})
    found = [f"{name} is missing" for name in schema.get("required", ()) if name not in value]
    return found + [
        f"{name}: {misfit}" for name in known if name in value for misfit in misfits(known[name], value[name])
    ]


def is_a(kind: str, value: Any) -> bool:
    types = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    return isinstance(value, types.get(kind, int | float)) and (kind == "boolean" or not isinstance(value, bool))


async def test_the_errors_and_the_idempotence_of_a_row_are_its_own(api: Any) -> None:
    details = {id: (await api.with_key(None).get(f"/v1/discovery/{id}")).document for id in CAPABILITIES}
    codes = {id: {error["code"] for error in detail["errors"]} for id, detail in details.items()}
    assert "UNAUTHORIZED" not in codes["discovery.list"]
    assert "INSUFFICIENT_CREDIT" not in codes["db.project.delete"]
    assert "IDEMPOTENCY_KEY_REUSED" not in codes["flags.list"]
    assert {"FLAG_NOT_FOUND", "FLAG_VERSION_CONFLICT"} <= codes["flags.toggle"]
    assert "VENDOR_UNAVAILABLE" in codes["db.branch.get"] - codes["cdn.distribution.get"]
    told = {id: detail["idempotent"] for id, detail in details.items()}
    assert all(told.values())  # D34: writes are deduplicated by their key


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_every_example_runs_as_it_is(api: Any) -> None:
    async def run(id: str) -> tuple[str, str]:
        command = (await api.with_key(None).get(f"/v1/discovery/{id}")).document["examples"]["curl"]
        process = await asyncio.create_subprocess_shell(
            f"{command} --silent", env={"PATH": os.environ["PATH"], "INFRAI_API_KEY": api.api_key}, stdout=-1
        )
        said, _ = await process.communicate()
        error = json.loads(said).get("error")
        return id, "" if error is None else error["code"]

    ended = dict([await run(id) for id in CAPABILITIES])
    understood = ("", "FLAG_VERSION_CONFLICT")  # the examples before have changed the flag
    assert {id: code for id, code in ended.items() if code not in understood and not code.endswith("_NOT_FOUND")} == {}
    assert (ended["db.project.create"], ended["flags.set"], ended["db.branch.get"]) == ("", "", "DB_BRANCH_NOT_FOUND")


async def test_an_unknown_capability_is_404(api: Any) -> None:
    answer = await api.with_key(None).get("/v1/discovery/no.such.thing")
    assert (answer.status, answer.code) == (404, "DISCOVERY_CAPABILITY_NOT_FOUND")
