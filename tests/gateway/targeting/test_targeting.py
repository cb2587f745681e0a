"""Targeting over HTTP: what the SDK's typed helpers say is what the gateway evaluates, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from time import perf_counter
from typing import Any
from urllib.parse import quote

import pytest

from infrai_async import AsyncInfrai, BadRequestError, ConflictError, FlagRule, RolloutConfig, Variant
from infrai_async.local import LocalGateway
from infrai_async.local.targeting.rollout import place

pytestmark = pytest.mark.anyio

PRO = {"attribute": "plan", "operator": "eq", "value": "pro"}


@pytest.fixture
async def client(api: Any) -> AsyncIterator[AsyncInfrai]:
    async with AsyncInfrai(api.api_key, base_url=api.base_url) as client:
        yield client


async def set_flag(api: Any, **fields: Any) -> Any:
    return await api.post("/v1/flags/set", {"key": "k"} | fields)


async def told(api: Any, context: Any = None, user: str = "u") -> Any:
    query = f"?user_id={quote(user)}" + (f"&context={quote(json.dumps(context))}" if context is not None else "")
    answer = (await api.get(f"/v1/flags/get_value/k{query}")).data
    on = (await api.get(f"/v1/flags/is_enabled/k{query}")).data["enabled"]
    assert (await api.get(f"/v1/flags/get_all{query}")).data["k"] == answer["value"]
    return answer["value"], answer["reason"], on


def fields_of(answer: Any) -> dict[str, str]:
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    return dict(answer.error["details"]["fields"])


# --- the order of evaluation -------------------------------------------------------------------------------------


async def test_the_first_rule_that_holds_decides_then_the_roll_out_then_the_default(api: Any) -> None:
    rules = [
        PRO | {"serve": "first"},
        {"attribute": "plan", "operator": "in", "value": ["pro", "team"], "serve": "second"},
        {"not": {"attribute": "age", "operator": "gte", "value": 18}, "serve": "third"},
    ]
    rollout = {"percentage": 50, "salt": "s", "variants": [{"key": "a", "value": "fourth"}]}
    assert (await set_flag(api, default_value="default", rules=rules, rollout=rollout)).data["rules"] == rules
    inside = next(str(user) for user in range(100) if place("s", str(user)) < 50_000)
    outside = next(str(user) for user in range(100) if place("s", str(user)) >= 50_000)
    for context, user, expected in (
        ({"plan": "pro"}, inside, ("first", "rule_match", True)),
        ({"plan": "team", "age": 5}, inside, ("second", "rule_match", True)),
        ({"age": 5}, inside, ("third", "rule_match", True)),
        ({"age": True}, inside, ("third", "rule_match", True)),
        ({"age": 18}, inside, ("fourth", "in_rollout", True)),
        ({"age": 18}, outside, ("default", "outside_rollout", False)),
    ):
        assert await told(api, context, user) == expected
    await set_flag(api, enabled=False)
    assert await told(api, {"plan": "pro"}) == ("default", "disabled", False)


async def test_a_bool_is_true_where_a_rule_says_nothing_else(api: Any) -> None:
    await set_flag(api, rules=[PRO, {"attribute": "plan", "operator": "exists", "serve": False}])
    assert await told(api, {"plan": "pro"}) == (True, "rule_match", True)
    assert await told(api, {"plan": "free"}) == (False, "rule_match", False)
    assert await told(api) == (True, "enabled", True)


async def test_the_user_is_an_attribute_and_goes_before_the_contexts(api: Any) -> None:
    rule = {"attribute": "user_id", "operator": "in", "values": ["ada", "eve"], "serve": True}
    await set_flag(api, rules=[rule], rollout={"percentage": 0, "salt": "s"})
    assert (await told(api, user="ada"))[0] is True
    assert (await told(api, {"user_id": "ada"}, user="bob"))[0] is False
    answer = await api.get("/v1/flags/get_value/k?context=" + quote('{"user_id":"ada"}'))
    assert answer.data["value"] is True


async def test_a_path_leads_into_the_context_in_every_spelling(api: Any) -> None:
    await set_flag(api, rules=[{"attribute": "app.os", "operator": "eq", "value": "ios", "serve": False}])
    for query in ("context=" + quote('{"app":{"os":"ios"}}'), "context.app.os=ios", "context[app.os]=ios"):
        assert (await api.get(f"/v1/flags/is_enabled/k?{query}")).data == {"enabled": False}


async def test_a_rule_can_serve_a_variant_of_the_flags(api: Any) -> None:
    variants = [{"key": "a", "value": 1}, {"name": "b", "value": 2}]
    rollout = {"percentage": 0, "salt": "s", "variants": variants}
    fields = {"default_value": 0, "rollout": rollout, "rules": [PRO | {"variant": "b"}]}
    assert (await set_flag(api, **fields)).status == 200
    query = "?context=" + quote('{"plan":"pro"}')
    answer = (await api.get(f"/v1/flags/get_value/k{query}")).data
    assert (answer["value"], answer["reason"], answer["variant"]) == (2, "rule_match", "b")
    fewer = {"percentage": 5, "salt": "s", "sticky_unit": "user_id", "version": 1, "variants": variants[:1]}
    assert fields_of(await api.post("/v1/flags/rollout/k", fewer)).keys() == {"rules[0].variant"}
    assert fields_of(await set_flag(api, rollout=None)).keys() == {"rules[0].variant"}
    assert (await api.get("/v1/flags/get/k")).data["version"] == 1


async def test_a_rule_can_be_for_a_share_only_and_the_rest_goes_on(api: Any) -> None:
    share = {"percentage": 50, "salt": "r"}
    await set_flag(api, default_value="d", rules=[PRO | {"rollout": share, "serve": "x"}, PRO | {"serve": "rest"}])
    for user in map(str, range(20)):
        expected = "x" if place("r", user) < 50_000 else "rest"
        assert await told(api, {"plan": "pro"}, user) == (expected, "rule_match", True)


async def test_growing_by_flags_rollout_keeps_the_variants_and_an_empty_list_takes_them_away(api: Any) -> None:
    variants = [{"key": "a", "value": 1}, {"key": "b", "value": 2, "weight": 3}]
    share = {"salt": "s", "sticky_unit": "user_id"}
    await set_flag(api, default_value=0, rollout=share | {"percentage": 30, "variants": variants})
    before = {user: await told(api, user=user) for user in map(str, range(30))}
    grown = (await api.post("/v1/flags/rollout/k", share | {"percentage": 70, "version": 1})).data
    assert grown["rollout"] == share | {"percentage": 70, "variants": variants}
    after = {user: await told(api, user=user) for user in before}
    assert {user for user, answer in before.items() if answer[2]} < {
        user for user, answer in after.items() if answer[2]
    }
    assert all(after[user] == answer for user, answer in before.items() if answer[2])
    emptied = (await api.post("/v1/flags/rollout/k", share | {"percentage": 70, "version": 2, "variants": []})).data
    assert emptied["rollout"]["variants"] == []


# --- what the SDK says -------------------------------------------------------------------------------------------


async def test_what_the_typed_helpers_say_is_what_is_evaluated(client: AsyncInfrai) -> None:
    arms = RolloutConfig(percentage=100, salt="s", variants=(Variant(key="a", value="A"), Variant(key="b", value="B")))
    rules = [
        FlagRule(attribute="plan", operator="in", value=("pro", "team"), serve="paying"),
        FlagRule(attribute="email", operator="ends_with", values=("@X.org", "@y.org"), ignore_case=True, serve="staff"),
        FlagRule(attribute="app.version", operator="semver_lt", value="2.0.0", variant="b"),
        FlagRule(attribute="beta", operator="exists", rollout=arms),
        {"all": [{"attribute": "n", "operator": "gt", "value": 1}, {"attribute": "n", "operator": "lt", "value": 3}]}
        | {"serve": "two"},
        FlagRule(attribute="country", operator="eq", value="DE", negate=True, serve="abroad"),
    ]
    rollout = RolloutConfig(percentage=0, salt="s", variants=(Variant(key="b", value="old"),))
    flag = await client.flags.set("k", type="string", default_value="d", rules=rules, rollout=rollout)
    said = [rule.to_dict() if isinstance(rule, FlagRule) else rule for rule in rules]
    assert flag.rules is not None
    assert json.dumps([dict(rule) for rule in flag.rules], sort_keys=True) == json.dumps(said, sort_keys=True)
    assert flag.rollout == rollout.to_dict()
    again = await client.flags.set("k", rules=flag.rules, rollout=flag.rollout)  # as they came
    assert (again.rules, again.rollout) == (flag.rules, flag.rollout)
    for context, value in (
        ({"plan": "team"}, "paying"),
        ({"email": "Ada@x.ORG"}, "staff"),
        ({"app": {"version": "1.9.9"}}, "old"),
        ({"n": 2}, "two"),
        ({"country": "FR"}, "abroad"),
        ({"country": "DE"}, "d"),
    ):
        got = await client.flags.get_value("k", user_id="u", context=context)
        assert got.value == value, context
    beta = await client.flags.get_value("k", user_id="u", context={"beta": 1})
    assert (beta.value, beta.reason) == ({"a": "A", "b": "B"}[str(beta.variant)], "rule_match")
    assert (await client.flags.get_all(context={"n": 2}))["k"] == "two"


async def test_a_flag_is_archived_and_brought_back_by_the_sdk(client: AsyncInfrai) -> None:
    flag = await client.flags.set("k", archived=True)
    assert flag.archived is True
    assert not await client.flags.is_enabled("k")
    assert await client.flags.list().collect() == []
    assert [each.key for each in await client.flags.list(include_archived=True).collect()] == ["k"]
    back: Any = await client.call("flags.set", {"key": "k", "archived": False, "version": 1})
    assert (back.archived, back.version) == (False, 2)


async def test_the_sdks_errors_name_the_place_and_the_version(client: AsyncInfrai) -> None:
    with pytest.raises(BadRequestError, match=r"rules\[1\]\.operator must be one of eq, in, "):
        await client.flags.set("k", rules=[PRO, FlagRule(attribute="a", operator="like", value="b")])
    await client.flags.set("k")
    with pytest.raises(ConflictError, match="the flag has version 1, not 5"):
        await client.flags.set("k", enabled=False, version=5)


# --- types -------------------------------------------------------------------------------------------------------

VALUES = {"bool": [True], "string": ["", "x"], "number": [0, 1.5, -7], "json": [None, True, 1, "x", [], {"a": [1]}]}


@pytest.mark.parametrize("kind", VALUES)
async def test_every_value_of_a_flag_is_of_its_type(api: Any, kind: str) -> None:
    good, wrong = VALUES[kind][0], [value for other in VALUES for value in VALUES[other] if other not in (kind, "json")]
    for value in VALUES[kind] + ([] if kind == "json" else [*wrong, [], {}]):
        share = {"percentage": 5, "salt": "s", "variants": [{"key": "v", "value": value}]}
        for where, fields in (
            ("default_value", {"default_value": value}),
            ("rules[0].serve", {"default_value": good, "rules": [PRO | {"serve": value}]}),
            ("rollout.variants[0].value", {"default_value": good, "rollout": share}),
            ("rules[0].rollout.variants[0].value", {"default_value": good, "rules": [PRO | {"rollout": share}]}),
        ):
            answer = await api.post("/v1/flags/set", {"key": f"{kind}-{where}", "type": kind} | fields)
            if any(value is fitting for fitting in VALUES[kind]):
                assert answer.status == 200, (where, value)
            else:
                assert fields_of(answer).keys() == {where}, (where, value)


async def test_true_is_no_number_and_1_is_not_true(api: Any) -> None:
    assert fields_of(await set_flag(api, type="number", default_value=True)).keys() == {"default_value"}
    assert fields_of(await set_flag(api, type="bool", default_value=1)).keys() == {"default_value"}
    assert fields_of(await set_flag(api, type="bool", default_value=None)).keys() == {"default_value"}


async def test_a_later_type_has_to_fit_all_that_is_there(api: Any) -> None:
    share = {"percentage": 5, "salt": "s", "variants": [{"key": "v", "value": "x"}]}
    await set_flag(api, default_value="d", rules=[PRO | {"serve": "x"}], rollout=share)
    given: dict[str, Any] = {"type": "number"}
    for where, name, fitting in (
        ("default_value", "default_value", 1),
        ("rollout.variants[0].value", "rollout", None),
        ("rules[0].serve", "rules", [PRO | {"serve": 2}]),
    ):
        assert fields_of(await set_flag(api, **given)).keys() == {where}
        given[name] = fitting
    changed = (await set_flag(api, **given)).data
    assert (changed["type"], changed["default_value"], changed["version"]) == ("number", 1, 2)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"type": "string", "rules": [PRO]}, "rules[0].serve"),
        ({"type": "json", "rules": [PRO]}, "rules[0].serve"),
        ({"rules": [PRO, PRO | {"value": []}]}, "rules[1].value"),
        ({"rules": [PRO | {"variant": "a"}]}, "rules[0].variant"),
        ({"rules": [PRO | {"rollout": {"percentage": 101, "salt": "s"}}]}, "rules[0].rollout.percentage"),
        ({"rules": [PRO | {"rollout": {"percentage": 1}}]}, "rules[0].rollout.salt"),
        ({"rules": [PRO | {"rollout": 5}]}, "rules[0].rollout"),
        ({"rollout": {"percentage": 1, "salt": "s", "sticky": "x"}}, "rollout.sticky"),
        ({"rollout": {"percentage": 1, "salt": "s", "sticky_unit": "user"}}, "rollout.sticky_unit"),
        ({"rollout": {"percentage": 1, "salt": "s", "variants": [{"key": "a"}]}}, "rollout.variants[0].value"),
        ({"rollout": {"percentage": 1, "salt": "s", "variants": [{"value": True}]}}, "rollout.variants[0].key"),
        (
            {"rollout": {"percentage": 1, "salt": "s", "variants": [{"key": "a", "value": True, "weight": "1"}]}},
            "rollout.variants[0].weight",
        ),
        (
            {"rollout": {"percentage": 1, "salt": "s", "variants": [{"key": "a", "value": True}] * 2}},
            "rollout.variants",
        ),
        (
            {
                "rollout": {
                    "percentage": 1,
                    "salt": "s",
                    "variants": [{"key": str(n), "value": True} for n in range(101)],
                }
            },
            "rollout.variants",
        ),
    ],
)
async def test_what_cannot_be_served_is_refused_with_its_place(api: Any, fields: Any, place: str) -> None:
    assert fields_of(await set_flag(api, **fields)).keys() == {place}
    assert (await api.get("/v1/flags/get/k")).status == 404


async def test_a_rule_serves_one_thing_only(api: Any) -> None:
    variants = [{"key": "a", "value": True}]
    rollout = {"percentage": 1, "salt": "s", "variants": variants}
    for rule in ({"serve": True, "variant": "a"}, {"serve": True, "rollout": rollout}):
        assert fields_of(await set_flag(api, rollout=rollout, rules=[PRO | rule])).keys() == {"rules[0].serve"}
    rule = PRO | {"variant": "a", "rollout": rollout}
    assert fields_of(await set_flag(api, rollout=rollout, rules=[rule])).keys() == {"rules[0].variant"}


# --- hostile -----------------------------------------------------------------------------------------------------


async def test_ten_thousand_rules_are_refused(api: Any) -> None:
    small = {"attribute": "a", "operator": "exists"}
    assert fields_of(await set_flag(api, rules=[small] * 10_000)) == {"rules": "at most 1000 conditions in all"}
    assert (await set_flag(api, rules=[small] * 1000)).status == 200
    assert await told(api, {"b": 1}) == (True, "enabled", True)


@pytest.mark.parametrize("levels", [11, 400, 5000, 100_000])
async def test_deep_conditions_are_refused(api: Any, levels: int) -> None:
    condition = '{"not":' * levels + json.dumps(PRO) + "}" * levels
    answer = await api.post("/v1/flags/set", raw=f'{{"key":"k","rules":[{condition}]}}'.encode())
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")


async def test_hostile_patterns_answer_soon(api: Any) -> None:
    patterns = ["(a+)+$", "(a|aa)+$", "(.*)*x", "((a|b){50}){10}c"]
    rules = [{"attribute": "t", "operator": "matches", "values": patterns, "serve": False}]
    await set_flag(api, rules=rules)
    began = perf_counter()
    text = "a" * 999 + "!"
    assert (await api.get(f"/v1/flags/is_enabled/k?context.t={text}")).data == {"enabled": True}
    assert perf_counter() - began < 20


@pytest.mark.parametrize(
    "context",
    [
        {"plan": ["pro"], "n": {"a": 1}, "t": 5, "v": None, "d": "never"},
        {"plan": {"pro": True}, "n": "5", "t": [], "v": "1.x", "d": 0},
        {"plan": None, "n": True, "t": {}, "v": [1], "d": ["2026-01-01"]},
        {f"k{number}": number for number in range(200)},
        {"": "", "\0": "\0", "a.b": "x", ".": 1, "..": {"": 1}},
        {"n": 10**300, "t": "\u202e\U0001f600", "v": "9" * 4000},
    ],
)
async def test_a_strange_context_matches_nothing_and_fails_nothing(api: Any, context: Any) -> None:
    rules = [
        PRO,
        {"attribute": "n", "operator": "lt", "value": 3},
        {"attribute": "n.a.b", "operator": "eq", "value": 3},
        {"attribute": "t", "operator": "matches", "value": "^[a-z]+$"},
        {"attribute": "t", "operator": "starts_with", "value": "a", "ignore_case": True},
        {"attribute": "v", "operator": "semver_lt", "value": "2.0.0"},
        {"attribute": "d", "operator": "before", "value": "2030-01-01"},
        {"attribute": "..", "operator": "gt", "value": 0},
    ]
    await set_flag(api, default_value="d", type="string", rules=[rule | {"serve": "matched"} for rule in rules])
    assert await told(api, context) == ("d", "enabled", True)


async def test_a_context_too_large_for_a_request_is_refused(api: Any) -> None:
    await set_flag(api)
    async with api.session.get(
        f"{api.base_url}/v1/flags/get_value/k", params={"context": json.dumps({"x": "y" * 70_000})}
    ) as answer:
        assert 400 <= answer.status < 500
    deep = quote("[" * 1000 + "]" * 1000)
    assert (await api.get(f'/v1/flags/get_value/k?context={{"a":{deep}}}')).status in (200, 400)
    assert (await api.get("/v1/flags/get_value/k")).status == 200


async def test_a_thousand_flags_with_rules_are_read_at_once(api: Any) -> None:
    def rules(number: int) -> list[Any]:
        return [
            {"attribute": "plan", "operator": "in", "values": ["team", f"p{number}"], "serve": False},
            {"attribute": "app.version", "operator": "semver_gte", "value": f"2.{number}.0", "serve": False},
            {"attribute": "email", "operator": "matches", "value": f"^qa{number}@", "serve": False},
        ]

    for first in range(0, 1000, 50):
        batch = range(first, first + 50)
        await asyncio.gather(
            *(api.post("/v1/flags/set", {"key": f"f{number}", "rules": rules(number)}) for number in batch)
        )
    context = quote(json.dumps({"plan": "p3", "app": {"version": "2.9.9"}, "email": "qa77@example.org"}))
    began = perf_counter()
    values = (await api.get(f"/v1/flags/get_all?context={context}")).data
    assert perf_counter() - began < 10
    assert {key for key, value in values.items() if not value} == {*(f"f{number}" for number in range(10)), "f77"}


# --- the state ---------------------------------------------------------------------------------------------------


async def test_rules_are_there_again_after_a_restart(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        await set_flag(ask_as(gateway), rules=[PRO | {"serve": False}])
    async with LocalGateway(**without_postgres) as gateway:
        assert await told(ask_as(gateway), {"plan": "pro"}) == (False, "rule_match", False)


async def test_rules_that_this_gateway_cannot_evaluate_are_503_and_no_ones_elses_trouble(
    without_postgres: Any, ask_as: Any
) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        await api.post("/v1/flags/set", {"key": "plain"})
        await set_flag(api, default_value="mine", rules=[PRO | {"serve": "x"}])
        other = json.dumps([PRO | {"operator": "of_tomorrow", "serve": "x"}])
        with closing(sqlite3.connect(without_postgres["data_dir"] / "state" / "state.db")) as database, database:
            database.execute("update flags set rules = ? where key = 'k'", [other])
        for path in ("is_enabled/k", "get_value/k"):
            answer = await api.get(f"/v1/flags/{path}")
            assert (answer.status, answer.code) == (503, "VENDOR_UNAVAILABLE")
            assert "rules[0].operator must be" in answer.error["message"]
        assert (await api.get("/v1/flags/get_all")).data == {"plain": True, "k": "mine"}
        told = (await api.get("/v1/flags/get_value/k?default=yours")).data
        assert (told["value"], told["reason"], told["default_value"]) == ("yours", "default", "mine")
        assert (told["enabled"], told["version"]) == (True, 1)
