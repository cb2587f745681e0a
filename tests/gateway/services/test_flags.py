"""``flags``: versions, and evaluation."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest

from infrai_async.local.targeting.evaluation import evaluate
from infrai_async.local.targeting.rollout import place

pytestmark = pytest.mark.anyio


async def set_flag(api: Any, **fields: Any) -> Any:
    return (await api.post("/v1/flags/set", {"key": "k"} | fields)).data


async def value(api: Any, query: str = "") -> Any:
    return (await api.get(f"/v1/flags/get_value/k{query}")).data


async def is_on(api: Any, query: str = "") -> Any:
    return (await api.get(f"/v1/flags/is_enabled/k{query}")).data["enabled"]


async def test_a_new_flag_is_an_enabled_bool_of_version_1(api: Any) -> None:
    flag = await set_flag(api)
    assert flag == {
        "key": "k",
        "description": None,
        "type": "bool",
        "default_value": False,
        "rules": [],
        "rollout": None,
        "tags": {},
        "enabled": True,
        "version": 1,
        "archived": False,
        "created_at": flag["created_at"],
        "updated_at": flag["created_at"],
    }
    assert (await api.get("/v1/flags/get/k")).data == flag


@pytest.mark.parametrize(
    ("default", "type"), [(True, "bool"), ("a", "string"), (1.5, "number"), ({"a": [None]}, "json")]
)
async def test_the_type_follows_from_the_default_where_it_is_not_given(api: Any, default: Any, type: str) -> None:
    flag = await set_flag(api, default_value=default)
    assert (flag["type"], flag["default_value"]) == (type, default)


async def test_setting_again_changes_what_is_given_and_keeps_the_rest(api: Any) -> None:
    first = await set_flag(api, type="string", default_value="a", tags={"team": "x"}, description="d")
    second = await set_flag(api, enabled=False)
    assert second == first | {"enabled": False, "version": 2, "updated_at": second["updated_at"]}
    third = await set_flag(api, tags={}, version=2)
    assert (third["tags"], third["version"], third["default_value"]) == ({}, 3, "a")


async def test_a_stale_version_is_409_and_says_both(api: Any) -> None:
    await set_flag(api)
    for path, body in (
        ("set", {"key": "k", "version": 2}),
        ("toggle/k", {"enabled": False, "version": 0}),
        ("rollout/k", {"percentage": 5, "salt": "s", "sticky_unit": "user_id", "version": 9}),
    ):
        answer = await api.post(f"/v1/flags/{path}", body)
        assert (answer.status, answer.code) == (409, "FLAG_VERSION_CONFLICT")
        assert answer.error["details"] == {"expected": body["version"], "actual": 1}
    assert (await api.get("/v1/flags/get/k")).data["version"] == 1


async def test_of_writers_with_the_same_version_one_wins(api: Any) -> None:
    await set_flag(api)
    body = {"enabled": False, "version": 1}
    answers = await asyncio.gather(*(api.post("/v1/flags/toggle/k", body) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7
    assert (await api.get("/v1/flags/get/k")).data["version"] == 2


async def test_version_0_means_a_flag_that_is_not_there(api: Any) -> None:
    assert (await set_flag(api, version=0))["version"] == 1
    assert (await api.post("/v1/flags/set", {"key": "k", "version": 0})).code == "FLAG_VERSION_CONFLICT"
    assert (await api.post("/v1/flags/set", {"key": "new", "version": 3})).code == "FLAG_VERSION_CONFLICT"


async def test_an_unknown_flag_is_404(api: Any) -> None:
    for method, path, body in (
        ("GET", "get/none", None),
        ("GET", "get_value/none", None),
        ("GET", "is_enabled/none", None),
        ("POST", "toggle/none", {"enabled": True, "version": 1}),
        ("DELETE", "delete/none", None),
    ):
        answer = await api.ask(method, f"/v1/flags/{path}", body)
        assert (answer.status, answer.code) == (404, "FLAG_NOT_FOUND")


@pytest.mark.parametrize(
    ("default", "read"), [("7", 7), ('"7"', "7"), ("x", "x"), ("null", None), ("", ""), ('{"a":1}', {"a": 1})]
)
async def test_an_unknown_flag_has_the_callers_default(api: Any, default: str, read: Any) -> None:
    answer = await api.get(f"/v1/flags/get_value/none?default={quote(default)}")
    assert (answer.data["value"], answer.data["reason"], answer.data["enabled"]) == (read, "default", False)


async def test_an_enabled_bool_is_true_and_anything_disabled_is_its_default(api: Any) -> None:
    await set_flag(api, default_value=False)
    assert await value(api) == {
        "key": "k",
        "value": True,
        "default_value": False,
        "enabled": True,
        "reason": "enabled",
        "version": 1,
    }
    assert await is_on(api) is True
    await set_flag(api, enabled=False)
    assert ((await value(api))["value"], (await value(api))["reason"], await is_on(api)) == (False, "disabled", False)


async def test_another_type_is_its_default_and_on_while_enabled(api: Any) -> None:
    await set_flag(api, type="json", default_value=[1])
    assert ((await value(api))["value"], await is_on(api)) == ([1], True)
    await set_flag(api, enabled=False)
    assert ((await value(api))["value"], await is_on(api)) == ([1], False)


async def test_get_all_maps_every_key_to_its_value(api: Any) -> None:
    await set_flag(api)
    await api.post("/v1/flags/set", {"key": "text", "default_value": "x"})
    assert (await api.get("/v1/flags/get_all?user_id=u")).data == {"k": True, "text": "x"}


@pytest.mark.parametrize("nested", [True, False])
async def test_a_roll_out_can_be_given_flat_or_nested(api: Any, nested: bool) -> None:
    await set_flag(api)
    rollout = {"percentage": 25, "salt": "v1", "sticky_unit": "user_id"}
    body = {"key": "k", "rollout": rollout} if nested else rollout | {"key": "k", "version": 1}
    flag = (await api.post("/v1/flags/rollout/k", body)).data
    assert (flag["rollout"], flag["version"]) == (rollout | {"variants": []}, 2)


@pytest.mark.parametrize(
    "rollout", [{"salt": "s"}, {"percentage": -1, "salt": "s"}, {"percentage": 5}, {"percentage": 5, "salt": 1}]
)
async def test_a_broken_roll_out_is_refused_wherever_it_is_given(api: Any, rollout: Any) -> None:
    assert (await api.post("/v1/flags/set", {"key": "k", "rollout": rollout})).status == 400
    await set_flag(api)
    assert (await api.post("/v1/flags/rollout/k", {"rollout": rollout})).status == 400


@pytest.mark.parametrize(
    "variants",
    [[{"value": 1}], [{"key": "a"}], [{"key": "a", "value": 1, "weight": -1}], [{"key": "a", "value": 1, "weight": 0}]],
)
async def test_variants_that_cannot_be_served_are_refused(api: Any, variants: Any) -> None:
    rollout = {"percentage": 5, "salt": "s", "variants": variants}
    assert (await api.post("/v1/flags/set", {"key": "k", "rollout": rollout})).status == 400


async def test_a_roll_out_is_sticky_and_follows_the_documented_formula(api: Any) -> None:
    await set_flag(api, rollout={"percentage": 30, "salt": "s"})
    for user in ("ada", "bob", "eve", "名前"):
        digest = sha256(f"s\0{user}".encode()).digest()
        inside = int.from_bytes(digest[:8], "big") * 100_000 >> 64 < 30_000
        query = f"?user_id={quote(user)}"
        assert [await is_on(api, query), (await value(api, query))["value"]] == [inside, inside]
        assert (await value(api, query))["reason"] == ("in_rollout" if inside else "outside_rollout")
    assert await is_on(api) is False  # nobody is asking


async def test_the_unit_can_come_from_the_context_in_every_spelling(api: Any) -> None:
    await set_flag(api, rollout={"percentage": 50, "salt": "s", "sticky_unit": "device_id"})
    inside = next(f"d{n}" for n in range(100) if place("s", f"d{n}") < 50_000)
    spellings = (
        "context=" + quote(json.dumps({"device_id": inside})),
        f"context[device_id]={inside}",
        f"context%5Bdevice_id%5D={inside}",
        f"context.device_id={inside}",
    )
    assert [await is_on(api, f"?{spelling}&user_id=u") for spelling in spellings] == [True] * 4
    assert (await api.get("/v1/flags/is_enabled/k?context=[1]")).status == 400


def rolled_out(percentage: float, **fields: Any) -> dict[str, Any]:
    rollout = {"percentage": percentage, "salt": "salt", "sticky_unit": "user_id"} | fields
    flag = {"type": "bool", "default_value": False, "enabled": True, "archived": False, "rules": []}
    return flag | {"rollout": rollout | {"variants": rollout.get("variants", [])}}


@pytest.mark.parametrize("percentage", [0, 0.1, 25, 99.9, 100])
def test_a_roll_out_holds_its_percentage(percentage: float) -> None:
    flag = rolled_out(percentage)
    inside = sum(evaluate(flag, f"user-{number}", {}).on for number in range(20_000))
    assert inside / 200 == pytest.approx(percentage, abs=1.2 if 1 < percentage < 99 else 0.1)


def test_whoever_is_inside_stays_inside_when_it_grows() -> None:
    users = [f"user-{number}" for number in range(2000)]
    small = {user for user in users if evaluate(rolled_out(10), user, {}).on}
    large = {user for user in users if evaluate(rolled_out(40), user, {}).on}
    assert small < large


def test_variants_share_by_weight_and_stick_when_the_percentage_grows() -> None:
    variants = [{"key": "a", "value": "A", "weight": 3}, {"name": "b", "value": "B"}]
    users = [f"user-{number}" for number in range(8000)]
    small = {user: evaluate(rolled_out(50, variants=variants) | {"type": "string"}, user, {}) for user in users}
    large = {user: evaluate(rolled_out(100, variants=variants) | {"type": "string"}, user, {}) for user in users}
    served = [verdict.variant for verdict in large.values()]
    assert served.count("a") / len(users) == pytest.approx(0.75, abs=0.02)
    assert {(verdict.variant, verdict.value) for verdict in large.values()} == {("a", "A"), ("b", "B")}
    assert all(large[user] == verdict for user, verdict in small.items() if verdict.variant)


async def test_a_roll_out_always_has_variants_and_an_empty_one_or_null_takes_it_away(api: Any) -> None:
    part = {"percentage": 5, "salt": "s"}
    for nothing in ({}, None):
        assert (await set_flag(api, rollout=part))["rollout"] == part | {"sticky_unit": "user_id", "variants": []}
        assert (await set_flag(api, rollout=nothing))["rollout"] is None
    assert (await set_flag(api, rollout=part))["rollout"] == (await set_flag(api, enabled=True))["rollout"]


async def test_archived_flags_are_their_default_and_listed_on_request_only(api: Any) -> None:
    await set_flag(api, rules=[{"attribute": "user_id", "operator": "exists"}])
    flag = await set_flag(api, archived=True)
    assert (flag["archived"], flag["version"]) == (True, 2)
    for query, count in (("", 0), ("?include_archived=true", 1), ("?include_archived=0", 0)):
        assert len((await api.get(f"/v1/flags/list{query}")).data["items"]) == count
    assert (await api.get("/v1/flags/get_all?user_id=u")).data == {}
    told = await value(api, "?user_id=u&default=true")
    assert (told["value"], told["reason"], told["enabled"]) == (False, "archived", True)
    assert await is_on(api, "?user_id=u") is False
    assert (await set_flag(api, description="d"))["archived"] is True  # changed, and still archived
    assert (await set_flag(api, archived=False))["archived"] is False
    assert (await api.get("/v1/flags/get_all?user_id=u")).data == {"k": True}


async def test_archiving_obeys_the_version(api: Any) -> None:
    await set_flag(api)
    assert (await api.post("/v1/flags/set", {"key": "k", "archived": True, "version": 7})).status == 409
    assert (await set_flag(api, archived=True, version=1))["version"] == 2
    assert (await api.post("/v1/flags/set", {"key": "k", "archived": "yes"})).status == 400
