"""One idempotency key, one effect, one charge (CONTRACT.md D4)."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


async def test_a_replay_has_the_first_answer_and_costs_nothing(api: Any) -> None:
    first = await api.post("/v1/cdn/distribution/create", {"origin": "a"}, key="k")
    again = await api.post("/v1/cdn/distribution/create", {"origin": "a"}, key="k")
    assert (again.status, again.data, again.cost, first.cost) == (200, first.data, 0, 0.001)
    assert again.document["metadata"]["request_id"] != first.document["metadata"]["request_id"]
    assert len((await api.get("/v1/cdn/distribution/list")).data["items"]) == 1


async def test_the_same_create_at_once_makes_one_database(api: Any, gateway: LocalGateway) -> None:
    before = await api.balance()
    body = {"name": "once"}
    answers = await asyncio.gather(*(api.post("/v1/db/project/create", body, key="k") for _ in range(8)))
    assert len({answer.data["connection_uri"] for answer in answers}) == 1
    assert sorted(answer.cost for answer in answers) == [0] * 7 + [0.001]
    assert await api.balance() == before - 0.001
    assert len((await api.get("/v1/db/project/list")).data["items"]) == 1


async def test_the_body_can_carry_the_key_too(api: Any) -> None:
    header = await api.post("/v1/flags/set", {"key": "a"}, key="k")
    body = await api.post("/v1/flags/set", {"key": "a", "idempotency_key": "k"})
    both = await api.post("/v1/flags/set", {"key": "a", "idempotency_key": "k"}, key="k")
    assert header.data == body.data == both.data
    assert [body.cost, both.cost] == [0, 0]


async def test_two_different_keys_in_one_request_are_400(api: Any) -> None:
    answer = await api.post("/v1/flags/set", {"key": "a", "idempotency_key": "one"}, key="two")
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize("key", ["", "x" * 256, 5, ["k"], True])
async def test_a_key_that_is_no_text_of_sensible_length_is_400(api: Any, key: Any) -> None:
    answer = await api.post("/v1/flags/set", {"key": "a", "idempotency_key": key})
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")


async def test_the_same_key_for_another_request_is_409(api: Any) -> None:
    await api.post("/v1/flags/set", {"key": "a"}, key="k")
    answer = await api.post("/v1/flags/set", {"key": "b"}, key="k")
    assert (answer.status, answer.code) == (409, "IDEMPOTENCY_KEY_REUSED")
    assert (await api.get("/v1/flags/get/b")).status == 404


async def test_the_order_of_fields_makes_no_other_request(api: Any) -> None:
    first = await api.post("/v1/flags/set", raw=b'{"key": "a", "enabled": true}', key="k")
    again = await api.post("/v1/flags/set", raw=b'{ "enabled":true,"key":"a"}', key="k")
    assert again.data == first.data


async def test_what_the_body_says_beyond_the_parameters_makes_another_request(api: Any) -> None:
    await api.post("/v1/flags/set", {"key": "a", "more": [1]}, key="k")
    assert (await api.post("/v1/flags/set", {"key": "a", "more": [1.0]}, key="k")).cost == 0
    assert (await api.post("/v1/flags/set", {"key": "a", "more": [2]}, key="k")).code == "IDEMPOTENCY_KEY_REUSED"


async def test_numbers_are_compared_as_numbers(api: Any) -> None:
    first = await api.post("/v1/flags/set", {"key": "a", "default_value": 5}, key="k")
    again = await api.post("/v1/flags/set", {"key": "a", "default_value": 5.0}, key="k")
    assert again.data == first.data
    assert (await api.post("/v1/flags/set", {"key": "a", "default_value": True}, key="k")).status == 409


async def test_a_key_counts_for_one_path(api: Any) -> None:
    for key in ("a", "b"):
        await api.post("/v1/flags/set", {"key": key})
    toggled = [await api.post(f"/v1/flags/toggle/{key}", {"enabled": False, "version": 1}, key="k") for key in "ab"]
    assert [answer.data["key"] for answer in toggled] == ["a", "b"]
    deleted = [await api.delete(f"/v1/flags/delete/{key}", key="k") for key in "ab"]
    assert [answer.data["key"] for answer in deleted] == ["a", "b"]


async def test_both_generations_share_a_key_for_one_path(api: Any) -> None:
    await api.post("/v1/storage/buckets", {"bucket": "b"})
    paths = ("buckets/b/objects/x/presign", "object/presign/b/x", "object/presign/b/y")
    first, again, another = [await api.post(f"/v1/storage/{path}", {}, key="k") for path in paths]
    assert first.data == again.data != another.data
    assert [answer.cost for answer in (first, again, another)] == [0.0001, 0, 0.0001]


async def test_a_key_counts_for_one_capability_and_one_account(api: Any, other: Any) -> None:
    made = [
        await api.post("/v1/flags/set", {"key": "a"}, key="k"),
        await api.post("/v1/storage/buckets", {"bucket": "a"}, key="k"),
        await other.post("/v1/flags/set", {"key": "a"}, key="k"),
    ]
    assert [answer.cost for answer in made] == [0.0001] * 3


async def test_both_generations_of_a_route_share_a_key(api: Any) -> None:
    first = await api.post("/v1/storage/buckets", {"bucket": "a"}, key="k")
    again = await api.post("/v1/storage/bucket/create", {"name": "a"}, key="k")
    assert again.data == first.data


async def test_every_kind_of_write_is_remembered(api: Any) -> None:
    await api.post("/v1/flags/set", {"key": "a"})
    toggled = [await api.post("/v1/flags/toggle/a", {"enabled": False, "version": 1}, key="t") for _ in range(2)]
    assert [answer.data["version"] for answer in toggled] == [2, 2]
    deleted = [await api.delete("/v1/flags/delete/a", key="d") for _ in range(2)]
    assert [answer.data for answer in deleted] == [{"ok": True, "key": "a"}] * 2
    assert (await api.delete("/v1/flags/delete/a", key="e")).status == 404
    topups = [(await api.post("/v1/account/topup", {"amount_usd": 5}, key="u")).data for _ in range(2)]
    assert topups[0] == topups[1]


async def test_a_refusal_is_not_remembered(api: Any) -> None:
    for body in ({"key": 5}, {"key": "a", "version": 7}):
        assert (await api.post("/v1/flags/set", body, key="k")).status in (400, 409)
    assert (await api.post("/v1/flags/nowhere", {"key": "a"}, key="k")).status == 404
    assert (await api.post("/v1/flags/set", {"key": "a"}, key="k")).cost == 0.0001


async def test_reads_know_no_keys(api: Any) -> None:
    costs = [(await api.get("/v1/flags/list", key="k")).cost for _ in range(2)]
    assert costs == [0.00001, 0.00001]


async def test_keys_outlive_the_gateway_and_are_forgotten_after_a_day(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        first = await ask_as(gateway).post("/v1/cdn/distribution/create", {"origin": "a"}, key="k")
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        again = await api.post("/v1/cdn/distribution/create", {"origin": "a"}, key="k")
        assert (again.data["distribution_id"], again.cost) == (first.data["distribution_id"], 0)
        _age(without_postgres["data_dir"], hours=23)
        assert (await api.post("/v1/cdn/distribution/create", {"origin": "a"}, key="k")).cost == 0
        _age(without_postgres["data_dir"], hours=2)
        fresh = await api.post("/v1/cdn/distribution/create", {"origin": "a"}, key="k")
        assert (fresh.cost, fresh.data["distribution_id"] == first.data["distribution_id"]) == (0.001, False)
    _age(without_postgres["data_dir"], hours=25)
    async with LocalGateway(**without_postgres) as gateway:
        await _swept(without_postgres["data_dir"])


WRITES = [
    ("POST", "/v1/flags/set", {"key": "new"}, 0.0001),
    ("POST", "/v1/flags/toggle/there", {"enabled": False, "version": 1}, 0.0001),
    ("POST", "/v1/flags/rollout/there", {"percentage": 5, "salt": "s", "sticky_unit": "user_id", "version": 1}, 0.0001),
    ("DELETE", "/v1/flags/delete/there", None, 0),
    ("POST", "/v1/storage/buckets", {"bucket": "new"}, 0.0001),
    ("POST", "/v1/storage/buckets/there/objects/x/presign", {"method": "PUT"}, 0.0001),
    ("POST", "/v1/cdn/distribution/create", {"origin": "new"}, 0.001),
    ("PATCH", "/v1/cdn/distribution/update/{id}", {"enabled": False}, 0.0001),
    ("POST", "/v1/cdn/cache/purge", {"distribution_id": "{id}"}, 0.0001),
    ("DELETE", "/v1/cdn/distribution/delete/{id}", None, 0),
    ("POST", "/v1/account/topup", {"amount_usd": 5}, 0),
    ("POST", "/v1/activate", {"region": "auto"}, 0),
    ("POST", "/v1/db/project/create", {"name": "new"}, 0.001),
]


async def prepared(api: Any) -> str:
    """An account with a flag and a bucket called ``there`` and a distribution, whose id is returned."""
    await api.post("/v1/flags/set", {"key": "there"})
    await api.post("/v1/storage/buckets", {"bucket": "there"})
    made = await api.post("/v1/cdn/distribution/create", {"origin": "there"})
    return str(made.data["distribution_id"])


@pytest.mark.parametrize(("method", "path", "body", "price"), WRITES)
async def test_any_write_that_arrives_many_times_at_once_is_done_and_paid_once(
    api: Any, method: str, path: str, body: Any, price: float
) -> None:
    id = await prepared(api)
    body = json.loads(json.dumps(body).replace("{id}", id))
    before = Decimal(repr(await api.balance()))
    key = f"at once {id}"
    answers = await asyncio.gather(
        *(api.ask(method, path.replace("{id}", id), body, key=key) for _ in range(6)),
        *(api.ask(method, path.replace("{id}", id), {**(body or {}), "idempotency_key": key}) for _ in range(6)),
    )
    assert all(answer.data == answers[0].data for answer in answers)
    assert sorted(answer.cost for answer in answers) == [0] * 11 + [price]
    assert before - Decimal(repr(await api.balance())) == Decimal(repr(price))


@pytest.mark.parametrize(
    ("path", "field", "listed"),
    [
        ("/v1/flags/set", "key", "/v1/flags/list"),
        ("/v1/storage/buckets", "bucket", "/v1/storage/buckets"),
        ("/v1/cdn/distribution/create", "origin", "/v1/cdn/distribution/list"),
        ("/v1/db/project/create", "name", "/v1/db/project/list"),
    ],
)
async def test_of_different_bodies_under_one_key_at_once_one_wins(api: Any, path: str, field: str, listed: str) -> None:
    bodies = [{field: f"name-{number % 4}"} for number in range(12)]
    answers = await asyncio.gather(*(api.post(path, body, key="k") for body in bodies))
    won = {body[field] for body, answer in zip(bodies, answers, strict=True) if answer.status == 200}
    assert len(won) == 1
    assert sorted(answer.status for answer in answers) == [200] * 3 + [409] * 9
    assert {answer.code for answer in answers if answer.status == 409} == {"IDEMPOTENCY_KEY_REUSED"}
    assert [item[field] for item in (await api.get(listed)).data["items"]] == list(won)


def _age(data_dir: Path, hours: int) -> None:
    with closing(sqlite3.connect(data_dir / "state" / "state.db")) as database, database:
        database.execute("update operations set started = started - ?", [hours * 3600])


async def _swept(data_dir: Path) -> None:
    deadline = time.monotonic() + 25
    with closing(sqlite3.connect(data_dir / "state" / "state.db")) as database:
        while database.execute("select count(*) from operations").fetchone() != (0,):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
