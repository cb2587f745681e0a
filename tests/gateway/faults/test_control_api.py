"""The limit and the faults over HTTP: from this machine, with a key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from infrai_async.local import LocalGateway
from infrai_async.local._errors import RequestRefused
from infrai_async.local.http.host_guard import check_peer

pytestmark = pytest.mark.anyio


@pytest.fixture
async def calm(gateway: LocalGateway) -> AsyncIterator[LocalGateway]:
    yield gateway
    gateway.faults.clear()
    gateway.limit(rate=None)


async def test_faults_are_set_shown_met_and_cleared(api: Any, calm: LocalGateway) -> None:
    set_ = await api.post("/_gateway/faults", {"capability": "flags.*", "status": 503, "retry_after": 2, "count": 2})
    fault = {
        "capability": "flags.*",
        "status": 503,
        "retry_after": 2,
        "latency": 0.0,
        "truncate": False,
        "drop": False,
        "count": 2,
    }
    assert set_.data == {"faults": [fault]}
    refused = await api.get("/v1/flags/list")
    assert (refused.status, refused.code, refused.headers["Retry-After"]) == (503, "VENDOR_UNAVAILABLE", "2")
    assert (await api.get("/_gateway/faults")).data == {"faults": [fault | {"count": 1}]}
    assert [each.count for each in calm.faults] == [1]
    assert (await api.delete("/_gateway/faults")).data == {"faults": []}
    assert (await api.get("/v1/flags/list")).status == 200


async def test_the_limit_is_set_shown_met_and_lifted(api: Any, calm: LocalGateway) -> None:
    assert (await api.get("/_gateway/limit")).data == {"rate": None, "burst": None}
    assert (await api.post("/_gateway/limit", {"rate": 0.01, "burst": 1})).data == {"rate": 0.01, "burst": 1}
    assert [(await api.get("/v1/account/balance")).status for _ in range(2)] == [200, 429]
    assert (await api.get("/_gateway/limit")).status == 200, "who sets a limit is not under it"
    assert (await api.delete("/_gateway/limit")).data == {"rate": None, "burst": None}
    assert (await api.get("/v1/account/balance")).status == 200
    assert (await api.post("/_gateway/limit", {"rate": 5})).data == {"rate": 5, "burst": 20}
    assert (await api.post("/_gateway/limit", {"rate": None})).data == {"rate": None, "burst": None}


async def test_it_costs_nothing(api: Any, calm: LocalGateway) -> None:
    await api.post("/_gateway/faults", {"latency": 0.001})
    assert (await api.get("/_gateway/faults")).cost == 0
    assert await api.balance() == 2


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("faults", {}, "status, latency, truncate, drop:"),
        ("faults", {"status": 200}, "status:"),
        ("faults", {"status": 500, "capabilty": "db.*"}, "capabilty:"),
        ("faults", {"status": 500, "count": 0}, "count:"),
        ("limit", {"rate": 0}, "rate:"),
        ("limit", {"rate": "5"}, "rate:"),
        ("limit", {"rate": 5, "bust": 1}, "bust:"),
        ("limit", {"burst": 0}, "burst:"),
    ],
)
async def test_what_makes_no_sense_is_400_and_sets_nothing(
    api: Any, calm: LocalGateway, path: str, body: Any, named: str
) -> None:
    answer = await api.post(f"/_gateway/{path}", body)
    assert (answer.status, answer.code) == (400, "VALIDATION_ERROR")
    assert answer.error["message"].startswith(named)
    assert list(calm.faults) == []
    assert (await api.get("/_gateway/limit")).data["rate"] is None


async def test_a_body_that_is_no_object_is_400(api: Any) -> None:
    assert (await api.post("/_gateway/faults", raw=b"[1]")).status == 400


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["faults", "limit"])
async def test_without_a_key_it_is_401(api: Any, calm: LocalGateway, method: str, path: str) -> None:
    for key in (None, "ifr_wrong"):
        answer = await api.with_key(key).ask(method, f"/_gateway/{path}", {"status": 500} if method == "POST" else None)
        assert (answer.status, answer.code) == (401, "UNAUTHORIZED")
    assert list(calm.faults) == []


async def test_there_is_nothing_else_behind_the_door(api: Any) -> None:
    for path in ("", "faults/", "faults/1", "secret", "%66aults"):
        assert (await api.get(f"/_gateway/{path}")).status == 404
    refused = await api.ask("PUT", "/_gateway/limit", {})
    assert (refused.status, refused.headers["Allow"]) == (405, "DELETE, GET, POST")


async def test_another_machine_is_refused_even_with_the_key(
    without_postgres: Any, ask_as: Any, own_address: str
) -> None:
    async with LocalGateway(**without_postgres, host="0.0.0.0", allow_hosts=(own_address,)) as gateway:
        near = ask_as(gateway)
        far = ask_as(
            type("Far", (), {"base_url": near.base_url.replace("127.0.0.1", own_address), "api_key": near.api_key})
        )
        assert await far.balance() == 2, "it is reached from there"
        for method in ("GET", "POST", "DELETE"):
            answer = await far.ask(method, "/_gateway/faults", {"status": 500} if method == "POST" else None)
            assert (answer.status, answer.code) == (403, "FORBIDDEN")
        assert (await near.get("/_gateway/faults")).data == {"faults": []}


@pytest.mark.parametrize(
    ("peer", "near"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("10.0.0.1", False),
        ("172.17.0.1", False),
        ("0.0.0.0", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("", False),
        (None, False),
    ],
)
def test_who_is_near(peer: str | None, near: bool) -> None:
    if near:
        check_peer(peer)
    else:
        with pytest.raises(RequestRefused):
            check_peer(peer)
