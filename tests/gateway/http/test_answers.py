"""Answers that programs by other hands read: numbers, pauses, routes that nobody knows, and requests left half-way."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
import sqlalchemy as sa

from infrai_async.capabilities import CAPABILITIES
from infrai_async.local import LocalGateway
from infrai_async.local._errors import out_of_resources, retry_after
from infrai_async.local.http import body, server, unserved
from infrai_async.local.http.envelope import encode, success

pytestmark = pytest.mark.anyio
CONTRACT = json.loads((Path(__file__).parents[2] / "contract" / "capabilities.json").read_text())


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "0.00001"),
        (1.5e-07, "0.00000015"),
        (-1e-09, "-0.000000001"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        ([1e-05, {"a": 2e-06}], '[0.00001,{"a":0.000002}]'),
        ({"note": '1e-05,"quoted":2e-06\\', "n": 1e-05}, '{"note":"1e-05,\\"quoted\\":2e-06\\\\","n":0.00001}'),
    ],
)
def test_small_numbers_have_no_exponent_and_texts_stay_as_they_are(value: Any, text: str) -> None:
    assert encode(value).decode() == text
    assert json.loads(text) == value
    assert json.loads(success(value, {"cost_usd": 1e-05})) == {
        "ok": True,
        "data": value,
        "error": None,
        "metadata": {"cost_usd": 1e-05},
    }


async def test_no_price_has_an_exponent(api: Any) -> None:
    answer = await api.get("/v1/flags/list")
    assert '"cost_usd":0.00001,' in answer.text
    assert answer.headers["X-Infrai-Cost-Usd"] == "0.00001"
    assert Decimal("0.00001") == Decimal(str(answer.cost))
    for text in [(await api.get("/v1/account/balance")).text, (await api.get("/v1/discovery")).text]:
        assert "e-0" not in text


@pytest.mark.parametrize(
    ("seconds", "whole", "exact"),
    [(0.0001, "1", "1"), (0.3, "1", "300"), (1.0, "1", "1000"), (59.0001, "60", "59001"), (0, "0", "0")],
)
def test_a_pause_is_whole_seconds_and_beside_them_milliseconds(seconds: float, whole: str, exact: str) -> None:
    assert retry_after(seconds) == {"Retry-After": whole, "Retry-After-Ms": exact}


# --- what nothing serves ---------------------------------------------------------------------------------------------


def test_every_row_of_the_contract_is_served_or_known_to_be_missing() -> None:
    missing = {(row["id"], row["method"], row["path"]) for row in CONTRACT if row["id"] not in CAPABILITIES}
    assert set(unserved.ROUTES) == missing


@pytest.mark.parametrize(("id", "method", "path"), unserved.ROUTES)
async def test_a_row_that_is_not_served_is_named(api: Any, id: str, method: str, path: str) -> None:
    answer = await api.ask(
        method, path.replace("{", "a-").replace("}", "-b"), {} if method in ("POST", "PUT") else None
    )
    assert (answer.status, answer.code, answer.cost) == (501, "NOT_IMPLEMENTED", 0)
    assert id in answer.error["message"]
    assert answer.error["details"] == {"capability": id}
    assert answer.error["retryable"] is False


@pytest.mark.parametrize(
    ("method", "path", "hint"),
    [
        ("GET", "/v1/typo/here", "GET /v1/discovery lists all capabilities"),
        ("POST", "/v1/account/nothing", "GET /v1/discovery lists all capabilities"),
        ("GET", "/v1/db/projects/list", "did you mean GET /v1/db/project/list?"),
        ("POST", "/v1/db/project/created", "did you mean POST /v1/db/project/create?"),
        ("GET", "/v1/" + "x" * 5000, "GET /v1/discovery"),
    ],
)
async def test_a_route_that_nothing_knows_is_named_with_what_is_near(
    api: Any, method: str, path: str, hint: str
) -> None:
    answer = await api.ask(method, path)
    assert (answer.status, answer.code) == (404, "NOT_FOUND")
    assert f"{method} {path[:190]}" in answer.error["message"]
    assert len(answer.error["message"]) < 300
    assert answer.error["details"] == {"method": method, "path": path[:200]}
    assert hint in answer.error["hint"]


async def test_discovery_lists_what_either_generation_takes(api: Any) -> None:
    document = (await api.get("/v1/discovery/storage.object.presign")).document
    assert document["path"] == "/v1/storage/object/presign/{bucket}/{key}"
    assert document["path"] in document["paths"]
    names = {parameter["name"]: parameter for parameter in document["parameters"]}
    assert {"op", "method", "content_type", "max_bytes", "response_disposition", "expires_seconds"} <= set(names)
    assert set(names) == set(document["request"]["properties"])
    assert all({"name", "in", "required", "type"} <= set(parameter) for parameter in names.values())
    bucket = (await api.get("/v1/discovery/storage.bucket.create")).document
    assert {"bucket", "name", "idempotency_key"} <= set(bucket["request"]["properties"])
    assert bucket["request"]["required"] == []  # either of the two names will do


# --- other sites' pages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{own}"}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
async def test_no_page_of_another_site_makes_accounts(
    api: Any, session: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    sent = {name: value.format(own=api.base_url) for name, value in headers.items()}
    for form in (b"{}", b""):
        async with session.post(f"{api.base_url}/v1/activate", data=form, headers=sent) as answer:
            assert answer.status == status


# --- what the machine lacks ------------------------------------------------------------------------------------------


def full_sqlite() -> Exception:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("pragma max_page_count = 2")
        try:
            connection.execute("create table t (x)")
            connection.execute("insert into t values (zeroblob(100000))")
        except sqlite3.OperationalError as error:
            return error
    raise AssertionError("not full")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Quota exceeded"),
        asyncpg.DiskFullError("could not extend file"),
        sa.exc.OperationalError("insert", {}, full_sqlite()),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_full_disk_is_called_that(error: Exception) -> None:
    lacking = out_of_resources(error)
    assert lacking is not None
    assert (lacking.status, lacking.code, lacking.retryable) == (507, "INSUFFICIENT_STORAGE", True)
    assert "no space left on device" in lacking.message


def test_other_errors_are_not() -> None:
    assert out_of_resources(ValueError("x")) is None
    assert out_of_resources(OSError(errno.EACCES, "x")) is None
    assert out_of_resources(sa.exc.OperationalError("insert", {}, sqlite3.OperationalError("locked"))) is None


async def test_lacking_descriptors_are_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, others = asyncio.get_running_loop(), []
    before = loop.get_exception_handler()
    loop.set_exception_handler(None)
    monkeypatch.setattr(loop, "default_exception_handler", others.append)
    try:
        with caplog.at_level(logging.ERROR), server.told_once_of_lacking_descriptors():
            for _ in range(300):
                loop.call_exception_handler({"message": "accept", "exception": OSError(errno.EMFILE, "Too many")})
            loop.call_exception_handler({"message": "something else", "exception": ValueError("x")})
        assert loop.get_exception_handler() is None
    finally:
        loop.set_exception_handler(before)
    assert [about["message"] for about in others] == ["something else"]
    (record,) = caplog.records
    assert "out of file descriptors" in record.getMessage()


# --- requests that do not go on --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("half", "answered"),
    [
        ("", ""),
        ("GET /v1/account/balance HTTP/1.1\r\nHo", ""),
        ("POST /v1/flags/set HTTP/1.1\r\nHost: localhost\r\n{key}Content-Length: 100\r\n\r\n{{", "408"),
        ("POST /v1/activate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{{", "408"),
    ],
    ids=["nothing", "half a head", "half a body", "half a body without a key"],
)
async def test_half_a_request_is_not_held_for_ever(
    without_postgres: Any, monkeypatch: pytest.MonkeyPatch, half: str, answered: str
) -> None:
    monkeypatch.setattr(body, "PATIENCE", 0.3)
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    async with LocalGateway(**without_postgres) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.base_url.rpartition(":")[2]))
        writer.write(half.format(key=f"Authorization: Bearer {gateway.api_key}\r\n").encode())
        said = await asyncio.wait_for(reader.read(), 60)
        writer.close()
    assert said.decode().partition(" ")[2][:3] == answered


async def test_a_body_that_comes_slowly_is_waited_for(without_postgres: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "PATIENCE", 1.0)

    async def slowly() -> Any:
        for piece in (b'{"key"', b":", b'"slow"', b"}"):
            await asyncio.sleep(0.5)
            yield piece

    async with LocalGateway(**without_postgres) as gateway, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {gateway.api_key}"}
        async with session.post(f"{gateway.base_url}/v1/flags/set", data=slowly(), headers=headers) as answer:
            assert answer.status == 200
