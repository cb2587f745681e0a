"""Prices, the wallet, accounts and their keys."""

from __future__ import annotations

import asyncio
import random
from decimal import Decimal
from typing import Any

import pytest

from infrai_async.local import LocalGateway

pytestmark = pytest.mark.anyio


async def priced(api: Any) -> list[tuple[Any, str]]:
    """Every kind of call once, and the documented price."""
    project = await api.post("/v1/db/project/create", {"name": "a"})
    id = project.data["id"]
    branch = await api.post("/v1/db/branch/create", {"project_id": id, "branch_name": "b"})
    snapshot = await api.post("/v1/db/snapshot/create", {"project_id": id})
    cdn = await api.post("/v1/cdn/distribution/create", {"origin": "..."})
    distribution = cdn.data["distribution_id"]
    return [
        (project, "0.001"),
        (branch, "0.001"),
        (snapshot, "0.001"),
        (await api.post(f"/v1/db/snapshot/restore/{snapshot.data['id']}"), "0.001"),
        (cdn, "0.001"),
        (await api.post("/v1/flags/set", {"key": "k"}), "0.0001"),
        (await api.post("/v1/flags/toggle/k", {"enabled": False, "version": 1}), "0.0001"),
        (await api.post("/v1/storage/buckets", {"bucket": "b"}), "0.0001"),
        (await api.post("/v1/storage/object/presign/b/k"), "0.0001"),
        (await api.ask("PATCH", f"/v1/cdn/distribution/update/{distribution}", {}), "0.0001"),
        (await api.post("/v1/cdn/cache/purge", {"distribution_id": distribution}), "0.0001"),
        (await api.get("/v1/cdn/cache/stats"), "0.00001"),
        (await api.get("/v1/flags/get_all"), "0.00001"),
        (await api.get("/v1/db/project/list"), "0.00001"),
        (await api.get("/v1/storage/bucket/list"), "0.00001"),
        (await api.get("/v1/account/balance"), "0"),
        (await api.post("/v1/account/topup", {"amount_usd": 10}), "0"),
        (await api.delete(f"/v1/cdn/distribution/delete/{distribution}"), "0"),
        (await api.delete("/v1/flags/delete/k"), "0"),
        (await api.delete(f"/v1/db/branch/delete/{branch.data['id']}"), "0"),
        (await api.get("/v1/flags/get/none"), "0"),
        (await api.post("/v1/storage/buckets", {"bucket": "b"}), "0"),
        (await api.post("/v1/flags/set", {}), "0"),
    ]


async def test_every_call_costs_what_is_documented_and_the_sum_is_exactly_what_is_gone(api: Any) -> None:
    calls = await priced(api)
    costs = [Decimal(repr(answer.document["metadata"]["cost_usd"])) for answer, _ in calls]
    assert costs == [Decimal(price) for _, price in calls]
    assert Decimal(repr(await api.balance())) == 2 - sum(costs)


async def test_hundreds_of_small_amounts_add_up_exactly(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres, credit="0.30") as gateway:
        api = ask_as(gateway)
        for _ in range(300):
            assert (await api.get("/v1/flags/list")).cost == 0.00001
        assert await api.balance() == 0.297


async def test_an_empty_wallet_is_402_with_a_checkout_url_and_nothing_is_done(
    without_postgres: Any, ask_as: Any
) -> None:
    async with LocalGateway(**without_postgres, credit="0.00015") as gateway:
        api = ask_as(gateway)
        assert (await api.post("/v1/flags/set", {"key": "a"})).status == 200
        answer = await api.post("/v1/flags/set", {"key": "b"}, key="k")
        assert (answer.status, answer.code, answer.cost) == (402, "INSUFFICIENT_CREDIT", 0)
        assert answer.error["checkout_url"].startswith(gateway.base_url)
        assert answer.error["retryable"] is False
        assert await api.balance() == 0.00005
        assert [flag["key"] for flag in (await api.get("/v1/flags/list")).data["items"]] == ["a"]
        assert (await api.delete("/v1/flags/delete/a")).status == 200  # what is free stays possible


async def test_without_money_too_what_is_wrong_is_said_first(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres, credit="0") as gateway:
        api = ask_as(gateway)
        assert (await api.get("/v1/flags/get/none")).status == 404
        assert (await api.post("/v1/flags/set", {"key": "a", "rollout": {"percentage": 5}})).status == 400
        assert (await api.post("/v1/flags/set", {"key": "a", "version": 3})).status == 409
        assert (await api.post("/v1/flags/set", {"key": "a"})).status == 402
        assert (await api.get("/v1/flags/get/a")).status == 404


async def test_the_last_cent_can_be_spent_once(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres, credit="0.0005") as gateway:
        api = ask_as(gateway)
        answers = await asyncio.gather(*(api.post("/v1/flags/set", {"key": f"{n}"}) for n in range(20)))
        assert sorted(answer.status for answer in answers) == [200] * 5 + [402] * 15
        assert await api.balance() == 0


async def test_activation_gives_an_account_of_its_own_with_trial_credit(api: Any) -> None:
    made = await api.with_key(None).post("/v1/activate", {"region": "auto", "device_kind": "cli"})
    assert set(made.data) == {"account_id", "project_id", "primary_api_key", "trial_credit_usd", "checkout_url"}
    assert (made.data["trial_credit_usd"], made.cost) == (2, 0)
    fresh = api.with_key(made.data["primary_api_key"])
    assert await fresh.balance() == 2
    await api.post("/v1/flags/set", {"key": "mine"})
    assert (await fresh.get("/v1/flags/get/mine")).status == 404
    assert await fresh.balance() == 2


async def test_a_repeated_activation_gives_the_same_account(api: Any) -> None:
    nobody = api.with_key(None)
    first, second = [(await nobody.post("/v1/activate", {}, key="laptop")).data for _ in range(2)]
    assert first == second
    assert first["primary_api_key"] != (await nobody.post("/v1/activate", {})).data["primary_api_key"]


async def test_a_top_up_is_pending_until_it_is_paid(api: Any) -> None:
    for body in ({"amount_usd": 12.5}, {"amount": 12.5, "currency": "usd"}, {"amount": 12.5, "amount_usd": 12.5}):
        record = (await api.post("/v1/account/topup", body | {"payment_method": "stripe"})).data
        assert (record["amount_usd"], record["state"], record["currency"]) == (12.5, "pending", "USD")
        assert record["checkout_url"] == record["next_action_url"]
        assert record["topup_id"] in record["checkout_url"]
    assert (await api.get("/v1/account/balance")).data == {"balance_usd": 2, "balance": 2, "currency": "USD"}


async def test_the_balance_outlives_the_gateway(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres, credit="1") as gateway:
        await ask_as(gateway).post("/v1/flags/set", {"key": "a"})
    async with LocalGateway(**without_postgres, credit="50") as gateway:
        assert await ask_as(gateway).balance() == 0.9999


def mixed(chance: random.Random, known: list[str]) -> tuple[str, str, Any, str | None]:
    """One call of any kind: new, repeated, contradicting its key, wrong, about nothing, free."""
    number = chance.randrange(40)
    keys = (None, f"k{number % 7}", f"k{number % 7}")
    return chance.choice(
        [
            ("POST", "/v1/flags/set", {"key": f"{number}"}, chance.choice(keys)),
            ("POST", "/v1/flags/set", {"key": f"{number}", "version": number % 3}, chance.choice(keys)),
            ("GET", f"/v1/flags/get/{number}", None, None),
            ("GET", "/v1/flags/list", None, None),
            ("DELETE", f"/v1/flags/delete/{number}", None, chance.choice(keys)),
            ("POST", "/v1/storage/buckets", {"bucket": f"b{number}"}, chance.choice(keys)),
            ("POST", f"/v1/storage/buckets/b{number}/objects/k/presign", {}, chance.choice(keys)),
            ("POST", "/v1/cdn/distribution/create", {"origin": f"{number}"}, chance.choice(keys)),
            ("POST", "/v1/cdn/cache/purge", {"distribution_id": chance.choice(known)}, chance.choice(keys)),
            ("PATCH", f"/v1/cdn/distribution/update/{chance.choice(known)}", {"cache_ttl_seconds": number}, None),
            ("POST", "/v1/flags/set", {"key": number}, chance.choice(keys)),
            ("GET", "/v1/nowhere", None, None),
            ("GET", "/v1/account/balance", None, None),
            ("POST", "/v1/account/topup", {"amount_usd": number / 100}, chance.choice(keys)),
        ]
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("credit", ["2.00", "0.0123"])
async def test_over_any_mix_of_calls_at_once_the_costs_sum_to_what_is_gone(
    without_postgres: Any, ask_as: Any, seed: int, credit: str
) -> None:
    chance = random.Random(seed)
    async with LocalGateway(**without_postgres, credit=credit) as gateway:
        api = ask_as(gateway)
        known, spent, paid, statuses = ["none"], Decimal(0), Decimal(0), set()
        gateway.faults.add("flags.*", status=503, count=5)
        for _ in range(12):
            calls = [mixed(chance, known) for _ in range(30)]
            answers = await asyncio.gather(*(api.ask(*call[:3], key=call[3]) for call in calls))
            spent += sum(Decimal(repr(answer.document["metadata"]["cost_usd"])) for answer in answers)
            statuses |= {answer.status for answer in answers}
            good = [answer.data for answer in answers if answer.status == 200]
            known += [
                data["distribution_id"]
                for data in good
                if isinstance(data, dict) and "purge_tags" not in data and "distribution_id" in data
            ]
            for data in good:
                if "checkout_url" in data and chance.random() < 0.05:
                    amount = await _pay(api, data["checkout_url"])
                    paid += amount
            assert Decimal(repr(await api.balance())) == Decimal(credit) + paid - spent
        assert {200, 400, 404, 409, 503} <= statuses
        assert (402 in statuses) == (credit != "2.00")


async def _pay(api: Any, url: str) -> Decimal:
    """Press a page's button; what that added to the wallet."""
    before = Decimal(repr(await api.balance()))
    async with api.session.post(url) as page:
        assert page.status == 200
    return Decimal(repr(await api.balance())) - before


@pytest.mark.parametrize("credit", ["two", "-1", "0.0000000001", "NaN", "Infinity", "", "1000000001", "1e30"])
def test_a_credit_that_is_no_money_is_refused(credit: str) -> None:
    with pytest.raises(ValueError, match="credit"):
        LocalGateway(credit=credit)
