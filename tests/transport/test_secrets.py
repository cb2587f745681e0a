"""No error shows a secret: not in its texts, nor in the local variables that an error tracker records."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import pickle
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer

from infrai_async import AsyncInfrai, ConnectError, Infrai, InfraiError, InvalidArgument, RetryPolicy

pytestmark = pytest.mark.anyio
KEY = "ifr_SECRET_KEY_0123456789"
PASSWORD = "PASSWORD_4711"
URI = f"postgresql://u:{PASSWORD}@127.0.0.1:1/d"
PROJECT = json.dumps({"ok": True, "data": SMALL | {"connection_uri": URI}, "error": None, "metadata": {}})
ECHO = f"cannot open {URI} for Bearer {KEY}"


def raw(head: str, body: str | bytes = PROJECT) -> Reply:
    """Exactly these bytes, then the end of the stream."""
    content = body.encode() if isinstance(body, str) else body
    return Reply(raw=head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + content, stray=(b"",), reset=False, close=True)


def failed(status: int, **error: object) -> Reply:
    document = {"ok": False, "data": None, "error": error, "metadata": {"request_id": ECHO, "vendor": ECHO}}
    return Reply(status=status, body=json.dumps(document).encode())


def escaped(text: str) -> str:
    """Every character as JSON may spell it."""
    return "".join(f"\\u{ord(char):04x}" for char in text)


OK = "HTTP/1.1 200 OK\nContent-Type: application/json"
RESPONSES: dict[str, Reply] = {
    "the connection is reset": Reply(drop=True),
    "a length that is too long": raw(f"{OK}\nContent-Length: {len(PROJECT) + 50}"),
    "no status line": Reply(raw=PROJECT.encode(), close=True),
    "a malformed status line": raw(f"HTTP/1.1 {PASSWORD} {KEY}"),
    "a malformed header": raw(f"{OK}\nX-Secret {PASSWORD} {KEY}"),
    "a header with a bad name": raw(f"{OK}\nX Secret: {PASSWORD} {KEY}"),
    "a header that is too long": raw(f"{OK}\nX-Long: " + f"{PASSWORD}{KEY}" * 5000),
    "a length that is no number": raw(f"{OK}\nContent-Length: {PASSWORD}{KEY}"),
    "two lengths": raw(f"{OK}\nContent-Length: 1\nContent-Length: {PASSWORD}"),
    "malformed chunks": raw(f"{OK}\nTransfer-Encoding: chunked", f"{PASSWORD}{KEY}\r\n{PROJECT}"),
    "chunks that are cut off": raw(f"{OK}\nTransfer-Encoding: chunked", f"{len(PROJECT) + 9:x}\r\n{PROJECT}"),
    "broken compression": Reply(body=PROJECT.encode(), headers={"Content-Encoding": "gzip"}),
    "compression that is cut off": Reply(
        body=gzip.compress(PROJECT.encode())[:-40], headers={"Content-Encoding": "gzip"}
    ),
    "JSON that is cut off": Reply(body=PROJECT.encode()[:-9]),
    "text": Reply(body=ECHO.encode(), headers={"Content-Type": f"text/{PASSWORD}{KEY}"}),
    "a web page": Reply(body=f"<html>{ECHO}".encode(), headers={"Content-Type": f"text/html{PASSWORD}"}),
    "a field of another type": answer(SMALL | {"connection_uri": URI, "name": {PASSWORD: KEY}}),
    "a field of another type in a call with a strange id": Reply(
        body=json.dumps({"ok": True, "data": {"id": 1}, "error": None, "metadata": {"request_id": ECHO}}).encode()
    ),
    "a field that is missing": answer({"connection_uri": URI, "region": KEY}),
    "a time that is none": answer(SMALL | {"connection_uri": URI, "created_at": f"{PASSWORD}{KEY}"}),
    "an ok that is neither": Reply(body=json.dumps({"ok": PASSWORD + KEY, "data": {"uri": URI}}).encode()),
    "a list": Reply(body=json.dumps([URI, KEY]).encode()),
    "a redirect": Reply(status=302, headers={"Location": f"https://u:{PASSWORD}@api.example/{KEY}?{PASSWORD}"}),
    "a redirect of another kind": Reply(status=307, headers={"Location": f"{PASSWORD}{KEY}"}),
    "a refusal that repeats everything": failed(400, code=ECHO, message=ECHO, hint=ECHO, details={"uri": URI}),
    "a refusal in other words": Reply(status=500, body=json.dumps({"error": ECHO, "uri": URI}).encode()),
    "a refusal with an escaped key": Reply(
        status=403, body=f'{{"ok": false, "error": {{"code": "X", "message": "{escaped(ECHO)}"}}}}'.encode()
    ),
    "an unknown key": failed(401, code="UNAUTHORIZED", message=f"unknown key {KEY}"),
    "no credit": failed(402, code="INSUFFICIENT_CREDIT", message=ECHO),
    "a pause that does not fit": Reply(status=503, body=failed(503, message=ECHO).body, headers={"Retry-After": "99"}),
}


def everything(error: BaseException, log: str) -> str:
    """All that an error tracker, a log or a curious user gets to see, but the frames of this file."""
    seen: list[BaseException] = []
    texts = [log]
    left: list[BaseException | None] = [error]
    while left:
        last = left.pop()
        if last is None or last in seen:
            continue
        seen.append(last)
        left += [last.__cause__, last.__context__]
        texts += [repr(last), str(last), repr(last.args), repr(vars(last))]
        for frame, _ in traceback.walk_tb(last.__traceback__):
            if frame.f_code.co_filename != __file__:
                texts += [f"{name}={value!r}" for name, value in frame.f_locals.items()]
    texts.append("".join(getattr(error, "__notes__", ())))
    assert pickle.loads(pickle.dumps(error)).args == error.args
    return "\n".join(texts)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("infrai_async")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.removeHandler(handler)
    logger.setLevel(level)


def second(reply: Reply) -> Callable[[Seen], Reply]:
    """The first call of all succeeds, so that there is a connection to break."""
    return lambda seen: answer(SMALL) if seen.target.endswith("first") else reply


@asynccontextmanager
async def client_of(oracle: Oracle, **options: Any) -> AsyncIterator[AsyncInfrai]:
    async with AsyncInfrai(KEY, base_url=oracle.url, timeout=10, **options) as client:
        await client.db.project.get("first")
        yield client


@pytest.mark.parametrize("writes", [False, True], ids=["a read", "a write"])
@pytest.mark.parametrize("reply", RESPONSES.values(), ids=RESPONSES)
async def test_an_error_shows_no_secret(reply: Reply, writes: bool, log: io.StringIO) -> None:
    with Oracle(second(reply)) as oracle:
        async with client_of(oracle, retry=RetryPolicy(max_attempts=2, initial=0.001)) as client:
            call = client.db.project.create(name="shop") if writes else client.db.project.get("p")
            with pytest.raises(InfraiError) as caught:
                await call
    shown = everything(caught.value, log.getvalue())
    assert PASSWORD not in shown
    assert KEY not in shown
    assert len(str(caught.value)) < 800
    assert caught.value.attempts


@pytest.mark.parametrize("reply", RESPONSES.values(), ids=RESPONSES)
def test_an_error_of_the_blocking_client_shows_no_secret(reply: Reply, log: io.StringIO) -> None:
    policy = RetryPolicy(max_attempts=2, initial=0.001)
    with Oracle(second(reply)) as oracle, Infrai(KEY, base_url=oracle.url, retry=policy, timeout=10) as client:
        client.db.project.get("first")
        with pytest.raises(InfraiError) as caught:
            client.db.project.get("p")
        shown = everything(caught.value, log.getvalue())
        with pytest.raises(InfraiError) as of_a_list:
            client.db.project.list().collect()
        shown += everything(of_a_list.value, log.getvalue())
    assert PASSWORD not in shown
    assert KEY not in shown


async def test_a_refusal_is_cut_and_stays_useful() -> None:
    reply = failed(400, code="C" * 900, message="why " * 400, hint="do " * 900)
    with Oracle(second(reply)) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(InfraiError, match="why why") as caught:
                await client.db.project.get("p")
    error: Any = caught.value
    assert (len(error.message), len(error.hint), len(error.code)) == (500, 500, 100)


async def test_a_reset_connection_keeps_the_reason_of_the_operating_system() -> None:
    with Oracle(second(Reply(drop=True))) as oracle:
        async with client_of(oracle, retry=RetryPolicy.none()) as client:
            with pytest.raises(InfraiError) as caught:
                await client.db.project.get("p")
    cause = caught.value.__cause__
    assert cause is None or (isinstance(cause, OSError) and cause.__traceback__ is None)


@pytest.mark.parametrize("kind", ["timeout", "close", "cancel"])
async def test_an_ended_call_shows_no_secret(kind: str, log: io.StringIO) -> None:
    slow = Reply(body=answer(SMALL).body, delay=30)
    with Oracle(second(slow)) as oracle:
        async with client_of(oracle) as client:
            limit = 0.1 if kind == "timeout" else 20
            view = client.with_options(timeout=limit)
            task = asyncio.ensure_future(view.db.project.create(name="shop"))
            await asyncio.sleep(0.05)
            if kind == "close":
                await client.aclose(grace=0)
            elif kind == "cancel":
                task.cancel()
            with pytest.raises((InfraiError, asyncio.CancelledError)) as caught:
                await task
    assert KEY not in everything(caught.value, log.getvalue())


async def test_a_timeout_of_the_callers_own_shows_no_secret(log: io.StringIO) -> None:
    half = raw(f"{OK}\nX-Secret: {PASSWORD}\nContent-Length: {len(PROJECT)}", PROJECT[:-9])
    half = Reply(raw=half.raw)  # and then nothing more
    with Oracle(second(half)) as oracle:
        async with client_of(oracle) as client:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.1):
                    await client.db.project.get("p")
    shown = everything(caught.value, log.getvalue())
    assert PASSWORD not in shown
    assert KEY not in shown


async def test_the_cause_of_a_failed_connection_has_no_frames() -> None:
    async with AsyncInfrai(KEY, base_url="http://127.0.0.1:9", retry=RetryPolicy.none()) as client:
        with pytest.raises(ConnectError) as caught:
            await client.db.project.get("p")
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.__traceback__ is None


REFUSED: dict[str, dict[str, Any]] = {
    "a key in a list": {"api_key": [KEY]},
    "a key in bytes": {"api_key": KEY.encode()},
    "a key in a mapping": {"api_key": {"key": KEY}},
    "an address that is the key": {"base_url": KEY},
    "an address with the key": {"base_url": f"api.example/{KEY}"},
    "a host that is the key": {"base_url": f"http://{KEY}.example"},
    "an address in bytes": {"base_url": KEY.encode()},
    "proxies in a list": {"proxy": [f"http://u:{PASSWORD}@proxy.example"]},
    "a proxy without a scheme": {"proxy": f"u:{PASSWORD}@proxy.example"},
    "headers in a list": {"headers": [("X-Token", PASSWORD)]},
    "headers with a wrong name": {"headers": {"X-Token": PASSWORD, "wrong name": "x"}},
    "headers with a wrong value": {"headers": {"X-Token": [PASSWORD]}},
    "headers with a line break": {"headers": {"X-Token": f"{PASSWORD}\r\n{KEY}"}},
    "another setting": {"headers": {"X-Token": PASSWORD}, "timeout": -1},
    "a word for a truth value": {"allow_http": "no"},
    "a number for a truth value": {"trust_env": 1},
}


@pytest.mark.parametrize("face", [AsyncInfrai, Infrai])
@pytest.mark.parametrize("wrong", REFUSED.values(), ids=REFUSED)
def test_a_setting_that_is_refused_is_not_shown(face: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(InfraiError, match=f"{[*wrong][-1]} ") as caught:
        face(**{"api_key": KEY, "base_url": "http://127.0.0.1:9", **wrong})
    shown = everything(caught.value, "")
    assert PASSWORD not in shown
    assert KEY.lower() not in shown.lower()


@pytest.mark.parametrize("face", [AsyncInfrai, Infrai])
@pytest.mark.parametrize("wrong", [wrong for wrong in REFUSED.values() if "headers" in wrong])
def test_headers_that_a_view_refuses_are_not_shown(face: Any, wrong: dict[str, Any]) -> None:
    client = face(KEY, base_url="http://127.0.0.1:9")
    with pytest.raises(InvalidArgument) as caught:
        client.with_options(**wrong)
    assert PASSWORD not in everything(caught.value, "")
