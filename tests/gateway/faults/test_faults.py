"""Injected faults, met by the client as a user's own test would have it meet them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from infrai_async import (
    APIError,
    AsyncInfrai,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    Infrai,
    InsufficientCreditError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    ServerError,
    TimeoutError,
    TransportError,
)
from infrai_async.local import LocalGateway
from infrai_async.local.faults.faults import NO_FAULT, Fault, Faults

pytestmark = pytest.mark.anyio
QUICK = RetryPolicy(initial=0.01, maximum=0.05)


@pytest.fixture
async def gw(gateway: LocalGateway) -> AsyncIterator[LocalGateway]:
    yield gateway
    gateway.faults.clear()


@pytest.fixture
async def client(gw: LocalGateway) -> AsyncIterator[AsyncInfrai]:
    async with AsyncInfrai(gw.api_key, base_url=gw.base_url, retry=QUICK) as client:
        yield client


@pytest.fixture
async def once(gw: LocalGateway) -> AsyncIterator[AsyncInfrai]:
    """A client that sends nothing twice."""
    async with AsyncInfrai(gw.api_key, base_url=gw.base_url, retry=RetryPolicy.none()) as client:
        yield client


async def test_retries_get_past_faults_of_the_next_calls(gw: LocalGateway, client: AsyncInfrai) -> None:
    gw.faults.add("flags.set", status=503, count=2)
    before = (await client.account.balance()).balance_usd
    flag = await client.flags.set("past", enabled=True)
    assert flag.version == 1
    assert flag.metadata.cost_usd == Decimal("0.0001")
    assert before - (await client.account.balance()).balance_usd == Decimal("0.0001")
    assert client.stats.retries == 2
    assert list(gw.faults) == []


@pytest.mark.parametrize("fault", [{"drop": True}, {"truncate": True}])
@pytest.mark.parametrize("count", [1, 2])
async def test_a_create_whose_answer_is_lost_makes_one_project_and_one_charge(
    gw: LocalGateway, client: AsyncInfrai, fault: dict[str, bool], count: int
) -> None:
    name = f"lost {fault} {count}"
    before = (await client.account.balance()).balance_usd
    gw.faults.add("db.project.create", **fault, count=count)  # type: ignore[arg-type]
    project = await client.db.project.create(name=name)
    assert client.stats.retries == count
    assert before - (await client.account.balance()).balance_usd == Decimal("0.001")
    assert project.metadata.cost_usd == 0, "a replay: the first was done, and only its answer lost"
    assert [each.id async for each in client.db.project.list() if each.name == name] == [project.id]


@pytest.mark.parametrize("fault", [{"drop": True}, {"truncate": True}])
async def test_without_retries_a_lost_answer_leaves_the_work_done(
    gw: LocalGateway, once: AsyncInfrai, fault: dict[str, bool]
) -> None:
    gw.faults.add("flags.set", **fault)  # type: ignore[arg-type]
    with pytest.raises(TransportError) as caught:
        await once.flags.set(f"done/{fault}", enabled=True)
    assert caught.value.outcome == "maybe_applied"
    gw.faults.clear()
    again = await once.flags.set(f"done/{fault}", enabled=True, idempotency_key=caught.value.idempotency_key)
    assert (again.version, again.metadata.cost_usd) == (1, 0)


@pytest.mark.parametrize("fault", [{"drop": True}, {"truncate": True}])
async def test_with_a_status_the_answer_is_lost_and_nothing_done(
    gw: LocalGateway, once: AsyncInfrai, fault: dict[str, bool]
) -> None:
    gw.faults.add("flags.set", status=503, count=1, **fault)  # type: ignore[arg-type]
    with pytest.raises(TransportError):
        await once.flags.set(f"undone/{fault}", enabled=True)
    with pytest.raises(NotFoundError):
        await once.flags.get(f"undone/{fault}")


async def test_a_refusal_is_lost_too(gw: LocalGateway, once: AsyncInfrai) -> None:
    gw.faults.add("flags.get", drop=True)
    with pytest.raises(TransportError):
        await once.flags.get("that is not there")


async def test_what_arrives_of_a_truncated_answer_is_less_than_it_announced(gw: LocalGateway) -> None:
    gw.faults.add("discovery.list", truncate=True)
    host, _, port = gw.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/discovery HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(25):
        answer = await reader.read()  # to the end: the connection was closed
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    announced = re.search(rb"Content-Length: (\d+)", head)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert announced is not None
    assert len(body) == int(announced[1]) // 2 > 0


async def test_of_a_dropped_answer_not_a_byte_arrives(gw: LocalGateway) -> None:
    gw.faults.add("discovery.*", drop=True)
    host, _, port = gw.base_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /v1/discovery HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(25):
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
    writer.close()


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "VALIDATION_ERROR", BadRequestError),
        (401, "UNAUTHORIZED", AuthenticationError),
        (402, "INSUFFICIENT_CREDIT", InsufficientCreditError),
        (403, "FORBIDDEN", PermissionDeniedError),
        (404, "STORAGE_BUCKET_NOT_FOUND", NotFoundError),
        (409, "CONFLICT", ConflictError),
        (418, "VALIDATION_ERROR", APIError),
        (422, "VALIDATION_ERROR", BadRequestError),
        (429, "RATE_LIMITED", RateLimitError),
        (500, "INTERNAL_ERROR", ServerError),
        (502, "VENDOR_ERROR", ServerError),
        (503, "VENDOR_UNAVAILABLE", ServerError),
        (504, "VENDOR_TIMEOUT", ServerError),
        (599, "INTERNAL_ERROR", ServerError),
    ],
)
async def test_a_status_comes_as_the_error_that_a_real_one_is(
    gw: LocalGateway, once: AsyncInfrai, status: int, code: str, kind: type[APIError]
) -> None:
    gw.faults.add("storage.bucket.*", status=status)
    before = (await once.account.balance()).balance_usd
    with pytest.raises(kind) as caught:
        await once.storage.bucket.create(bucket="never")
    error = caught.value
    assert (error.status, error.code, error.outcome) == (status, code, "rejected")
    assert error.retryable is (status == 429 or status >= 500)
    assert error.request_id
    assert (await once.account.balance()).balance_usd == before
    gw.faults.clear()
    assert "never" not in [bucket.bucket async for bucket in once.storage.bucket.list()]


async def test_an_injected_402_leads_to_a_page_that_works(gw: LocalGateway, once: AsyncInfrai, session: Any) -> None:
    gw.faults.add("flags.*", status=402, count=1)
    with pytest.raises(InsufficientCreditError) as caught:
        await once.flags.list().page()
    async with session.get(caught.value.checkout_url) as page:
        assert (page.status, page.content_type) == (200, "text/html")


async def test_a_contested_flag_can_be_tested(gw: LocalGateway, client: AsyncInfrai) -> None:
    await client.flags.set("contested", enabled=True)
    gw.faults.add("flags.toggle", status=409, count=1)
    with pytest.raises(ConflictError, match="FLAG_VERSION_CONFLICT"):
        await client.flags.toggle("contested", enabled=False, version=1)
    assert (await client.flags.toggle("contested", enabled=False, version=1)).version == 2


async def test_retry_after_is_obeyed(gw: LocalGateway, client: AsyncInfrai) -> None:
    gw.faults.add("account.balance", status=429, retry_after=1.2, count=1)
    started = time.monotonic()
    await client.account.balance()
    assert time.monotonic() - started >= 1.2


@pytest.mark.parametrize(
    ("seconds", "whole", "exact"),
    [
        (2, "2", "2000"),
        (2.0, "2", "2000"),
        (4.2, "5", "4200"),
        (0.05, "1", "50"),
        (0.0299, "1", "30"),
        (1e-6, "1", "1"),
        (1e9, "1000000000", "1000000000000"),
        (0, "0", "0"),
        (None, None, None),
    ],
)
async def test_retry_after_is_whole_and_beside_it_exact(
    gw: LocalGateway, api: Any, seconds: float | None, whole: str | None, exact: str | None
) -> None:
    gw.faults.add(status=503, retry_after=seconds, count=1)
    headers = (await api.get("/v1/account/balance")).headers
    assert (headers.get("Retry-After"), headers.get("Retry-After-Ms")) == (whole, exact)


async def test_latency_comes_before_the_work_and_a_caller_that_gives_up_is_not_waited_for(
    gw: LocalGateway, once: AsyncInfrai
) -> None:
    gw.faults.add("flags.set", latency=60, count=1)
    await once.account.balance()  # connected: what comes now is sent at once
    started = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        await once.with_options(timeout=1).flags.set("slow", enabled=True)
    async with asyncio.timeout(25):
        while "slow" not in [flag.key async for flag in once.flags.list()]:
            await asyncio.sleep(0.05)
    assert time.monotonic() - started < 30
    again = await once.flags.set("slow", enabled=True, idempotency_key=caught.value.idempotency_key)
    assert (again.version, again.metadata.cost_usd) == (1, 0)


async def test_a_gateway_closes_promptly_when_nobody_waits_for_its_latency(without_postgres: Any) -> None:
    started = time.monotonic()
    async with LocalGateway(**without_postgres) as slow:
        slow.faults.add(latency=60)
        async with AsyncInfrai(slow.api_key, base_url=slow.base_url, timeout=0.5) as client:
            with pytest.raises(TimeoutError):
                await client.account.balance()
    assert time.monotonic() - started < 20


async def test_nobody_is_left_to_receive_half_an_answer(
    gw: LocalGateway, once: AsyncInfrai, caplog: pytest.LogCaptureFixture
) -> None:
    for fault in ({"truncate": True}, {"drop": True}):
        gw.faults.add("flags.set", latency=60, count=1, **fault)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            await once.with_options(timeout=0.5).flags.set(f"gone/{fault}", enabled=True)
        async with asyncio.timeout(25):
            while f"gone/{fault}" not in [flag.key async for flag in once.flags.list()]:
                await asyncio.sleep(0.05)
    assert caplog.records == []


async def test_latency_and_status_make_one_slow_failure(gw: LocalGateway, once: AsyncInfrai) -> None:
    gw.faults.add("account.balance", latency=1, status=500, count=1)
    started = time.monotonic()
    with pytest.raises(ServerError):
        await once.account.balance()
    assert time.monotonic() - started >= 1


async def test_a_stranger_is_refused_before_any_fault_and_uses_none_up(gw: LocalGateway, api: Any) -> None:
    gw.faults.add(status=500, count=1)
    assert (await api.with_key("ifr_wrong").get("/v1/account/balance")).status == 401
    assert (await api.get("/v1/nowhere")).status == 404
    assert (await api.get("/v1/account/balance")).status == 500
    assert (await api.get("/v1/account/balance")).status == 200


async def test_a_call_over_the_limit_uses_up_no_fault(without_postgres: Any, ask_as: Any) -> None:
    async with LocalGateway(**without_postgres) as gateway:
        api = ask_as(gateway)
        gateway.limit(rate=0.01, burst=1)
        gateway.faults.add(status=500, count=2)
        assert [(await api.get("/v1/account/balance")).status for _ in range(3)] == [500, 429, 429]
        assert [fault.count for fault in gateway.faults] == [1]


async def test_faults_are_set_while_a_blocking_client_works_in_a_thread(gw: LocalGateway) -> None:
    def work() -> int:
        with Infrai(gw.api_key, base_url=gw.base_url, retry=QUICK) as client:
            gw.faults.add("storage.bucket.create", drop=True, count=1)
            gw.faults.add("storage.bucket.create", status=429, count=1)
            assert client.storage.bucket.create(bucket="from-a-thread").metadata.cost_usd == 0
            return client.stats.retries

    assert await asyncio.to_thread(work) == 2


async def test_exactly_so_many_of_many_calls_at_once_fail(gw: LocalGateway, api: Any) -> None:
    gw.faults.add("account.balance", status=500, count=7)
    answers = await asyncio.gather(*(api.get("/v1/account/balance") for _ in range(30)))
    assert sorted(answer.status for answer in answers) == [200] * 23 + [500] * 7


# --- without HTTP ----------------------------------------------------------------------------------------------------


def test_the_first_fault_that_concerns_a_call_is_met_until_it_is_used_up() -> None:
    faults = Faults()
    faults.add("db.*", status=500, count=2)
    faults.add("db.project.create", status=501)
    faults.add(latency=1, count=1)
    assert [faults.take("db.project.create").status for _ in range(4)] == [500, 500, 501, 501]
    assert [faults.take(id).latency for id in ("flags.set", "flags.set")] == [1, 0]
    assert list(faults) == [Fault(capability="db.project.create", status=501)]
    faults.clear()
    assert faults.take("db.project.create") is NO_FAULT


def test_a_pattern_holds_letters_apart_and_means_whole_ids() -> None:
    faults = Faults()
    faults.add("db.branch.[cd]*", status=500)
    met = [id for id in ("db.branch.create", "db.branch.delete", "db.branch.get") if faults.take(id) is not NO_FAULT]
    assert met == ["db.branch.create", "db.branch.delete"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("capability", {"capability": "db.projct.create", "status": 500}),
        ("capability", {"capability": "DB.*", "status": 500}),
        ("capability", {"capability": "", "status": 500}),
        ("capability", {"capability": 5, "status": 500}),
        ("status", {"status": 200}),
        ("status", {"status": 399}),
        ("status", {"status": 600}),
        ("status", {"status": "503"}),
        ("status", {"status": True}),
        ("latency", {"latency": -1}),
        ("latency", {"latency": float("nan")}),
        ("latency", {"latency": float("inf")}),
        ("latency", {"latency": "1"}),
        ("latency", {"latency": 10**400}),
        ("latency", {"latency": None}),
        ("capability", {"capability": "[!a" * 100_000, "drop": True}),
        ("retry_after", {"status": 429, "retry_after": -1}),
        ("retry_after", {"status": 429, "retry_after": True}),
        ("retry_after", {"retry_after": 1, "drop": True}),
        ("truncate", {"truncate": "yes"}),
        ("drop", {"drop": None}),
        ("truncate, drop", {"truncate": True, "drop": True}),
        ("count", {"status": 500, "count": 0}),
        ("count", {"status": 500, "count": 1.0}),
        ("count", {"status": 500, "count": True}),
        ("status, latency, truncate, drop", {}),
        ("status, latency, truncate, drop", {"count": 3}),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_by_name(name: str, arguments: dict[str, Any]) -> None:
    faults = Faults()
    with pytest.raises(ValueError, match=f"^{name}: "):
        faults.add(**arguments)
    assert list(faults) == []
