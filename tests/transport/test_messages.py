"""What the errors of the transport say: which address, which time limit, what was going on, where the key came from."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from support.oracle import SMALL, Oracle, Reply, answer, refuse
from yarl import URL

from infrai_async import (
    AsyncInfrai,
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    Infrai,
    InfraiError,
    RateLimitError,
    RetryPolicy,
    TimeoutError,
    TransportError,
)
from infrai_async._transport import connector
from infrai_async._transport.failures import as_transport_error

pytestmark = pytest.mark.anyio
ONCE = RetryPolicy.none()
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def told(error: BaseException) -> str:
    """All that a user reads of an error."""
    return " | ".join([str(error), *getattr(error, "__notes__", ())])


@contextlib.asynccontextmanager
async def listening(talk: Talk) -> AsyncIterator[str]:
    """A server that talks as it is told; gives its host and port."""
    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read for ever."""
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()


async def failure(client: AsyncInfrai) -> InfraiError:
    with pytest.raises(InfraiError) as caught:
        await client.db.project.get("p")
    return caught.value


# --- time that runs out ------------------------------------------------------------------------------------------


async def test_a_call_without_a_response_says_how_long_it_waited_and_for_whom() -> None:
    async with listening(never) as address, AsyncInfrai("k", base_url=f"http://{address}", timeout=0.4) as client:
        error = await failure(client)
        longer = await failure(client.with_options(timeout=timedelta(seconds=0.5)))
    assert isinstance(error, TimeoutError)
    limit = "db.project.get: the call's time limit of {} s was reached before the response arrived from"
    assert str(error) == f"{limit.format('0.4')} {address}"
    assert str(longer) == f"{limit.format('0.5')} {address}"
    assert error.attempts[0].error == error.message


async def test_a_handshake_that_hangs_is_time_that_ran_out_while_connecting() -> None:
    async with listening(never) as address, AsyncInfrai("k", base_url=f"https://{address}", timeout=0.4) as client:
        error = await failure(client)
    assert isinstance(error, TimeoutError)
    assert error.outcome == "not_sent"
    assert str(error) == f"db.project.get: the call's time limit of 0.4 s was reached while connecting to {address}"


async def test_a_call_that_waited_for_a_slot_names_the_setting() -> None:
    async with (
        listening(never) as address,
        AsyncInfrai("k", base_url=f"http://{address}", timeout=5, max_concurrency=1, retry=ONCE) as client,
    ):
        first = asyncio.create_task(client.db.project.get("p"))
        await asyncio.sleep(0.05)
        error = await failure(client.with_options(timeout=0.3))
        first.cancel()
        await asyncio.wait([first])
    assert isinstance(error, TimeoutError)
    for part in ("time limit of 0.3 s", "a slot in the pool (see max_concurrency)", f"before it was sent to {address}"):
        assert part in str(error)


async def test_a_call_that_waited_for_its_key_says_so() -> None:
    async def forever() -> str:
        await asyncio.sleep(60)
        raise AssertionError

    async with AsyncInfrai(forever, base_url="http://127.0.0.1:9", timeout=0.2) as client:
        error = await failure(client)
    assert "time limit of 0.2 s was reached while it waited for the API key, before it was sent to" in str(error)


async def test_the_deadline_of_a_block_is_told_from_the_calls_own_limit() -> None:
    async with listening(never) as address, AsyncInfrai("k", base_url=f"http://{address}", timeout=60) as client:
        with client.deadline(0.3):
            error = await failure(client)
            late = await failure(client)
    assert isinstance(error, TimeoutError)
    assert re.search(
        r"the enclosing block's deadline \(0\.[0-9]+ s after the start of the call\) was reached", str(error)
    )
    assert "60 s" not in str(error)
    assert str(late) == "db.project.get: the deadline of the enclosing block has passed: <Deadline: 0.3 s>"


async def test_a_pause_beyond_the_time_limit_says_both() -> None:
    with Oracle(lambda seen: refuse(429, "RATE_LIMITED", headers={"Retry-After": "30"})) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, timeout=4) as client:
            await failure(client)
            error = await failure(client)
    assert isinstance(error, RateLimitError)
    assert "after the call's time limit of 4 s" in str(error)


async def test_a_connection_that_no_one_makes_says_for_how_long_and_to_whom() -> None:
    error, not_sent = as_transport_error(
        aiohttp.ConnectionTimeoutError("Connection timeout to host https://h/v1/db/project/get/name"), "h:443"
    )
    assert (type(error), not_sent) == (ConnectError, True)
    assert str(error) == "cannot connect to h:443: no connection within 10 s"


# --- connections that break --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        (Reply(drop=True), "the connection was closed before the response arrived"),
        (Reply(body=b"x" * 50, cut=10), "the connection broke before the end of the response"),
    ],
    ids=["dropped", "cut off"],
)
async def test_a_connection_that_breaks_names_the_address(reply: Reply, what: str) -> None:
    with Oracle(lambda seen: reply) as oracle:
        async with AsyncInfrai("k", base_url=oracle.url, retry=ONCE) as client:
            error = await failure(client)
    address = oracle.url.removeprefix("http://")
    assert type(error) is TransportError
    assert str(error) in (
        f"db.project.get: {what} ({address})",
        f"db.project.get: the connection broke before the response arrived: Connection reset by peer ({address})",
    )


async def test_a_connection_that_is_refused_says_why_without_numbers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with AsyncInfrai("k", base_url=f"http://{address}/a/path", retry=ONCE) as client:
            error = await failure(client)
    assert str(error) == f"db.project.get: cannot connect to {address}: Connection refused"


async def test_a_client_that_is_closed_names_the_address_too() -> None:
    async with listening(never) as address:
        client = AsyncInfrai("k", base_url=f"http://{address}", retry=ONCE)
        call = asyncio.create_task(client.db.project.get("p"))
        await asyncio.sleep(0.2)
        await client.aclose(grace=0)
        with pytest.raises(TransportError, match=f"the client was closed before the response arrived from {address}"):
            await call


# --- 401 ---------------------------------------------------------------------------------------------------------


async def test_a_refused_key_says_where_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def renewed() -> str:
        return "ifr_of_a_function"

    file = tmp_path / ".infrai" / "credentials"
    file.parent.mkdir()
    file.write_text("ifr_of_the_file")
    monkeypatch.setenv("HOME", str(tmp_path))
    with Oracle(lambda seen: refuse(401, "UNAUTHORIZED", hint="get another")) as oracle:

        async def hints(api_key: Any = None) -> str:
            async with AsyncInfrai(api_key, base_url=oracle.url) as client:
                error = await failure(client)
                assert isinstance(error, AuthenticationError)
                assert "ifr_of" not in told(error)
                return told(error)

        assert "the API key that was refused comes from api_key=" in await hints("ifr_of_the_argument")
        for function in (lambda: "ifr_of_a_function", renewed):  # refused twice: each function is asked again
            assert "the API key that was refused comes from the api_key function" in await hints(function)
        assert f"the API key that was refused comes from {file}" in await hints()
        monkeypatch.setenv("INFRAI_API_KEY", "ifr_of_the_environment")
        assert "the API key that was refused comes from INFRAI_API_KEY" in await hints()
        async with AsyncInfrai(base_url=oracle.url) as client:
            with pytest.raises(AuthenticationError) as caught:
                await client.account.activate(write_credentials=False)
            assert "comes from" not in told(caught.value)  # it is sent without a key


# --- proxies -----------------------------------------------------------------------------------------------------


async def test_time_that_runs_out_behind_a_proxy_names_both_addresses() -> None:
    async with listening(never) as proxy:
        through = f"http://user:passw0rd@{proxy}"
        async with AsyncInfrai("k", base_url="https://api.test", proxy=through, timeout=0.3) as client:
            error = await failure(client)
    assert f"while connecting to api.test:443 through the proxy {proxy}" in str(error)
    assert "passw0rd" not in told(error)


async def test_a_proxy_that_cannot_be_reached_is_named_without_its_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        through = f"http://user:passw0rd@{address}"
        async with AsyncInfrai("k", base_url="https://api.test", proxy=through, retry=ONCE) as client:
            error = await failure(client)
    assert str(error) == f"db.project.get: cannot connect to the proxy {address}: Connection refused"


async def test_a_proxy_that_wants_a_password_says_so() -> None:
    with Oracle(lambda seen: Reply(status=407)) as proxy:
        async with AsyncInfrai("k", base_url="https://api.test", proxy=URL(proxy.url), retry=ONCE) as client:
            error = await failure(client)
    through = f"db.project.get: cannot connect to api.test:443 through the proxy {proxy.url.removeprefix('http://')}"
    assert str(error) == f"{through}: the proxy refused (HTTP 407): check the user and the password in the proxy's URL"


@pytest.mark.parametrize("value", ["socks5://user:passw0rd@proxy:1080", "http://user:passw0rd@proxy:port"])
async def test_a_proxy_of_the_environment_that_cannot_be_used_is_named_at_the_first_call(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("all_proxy", value)
    async with AsyncInfrai("k", base_url="https://api.test", trust_env=True) as client:
        error = await failure(client)
    assert isinstance(error, ConfigurationError)
    assert error.outcome == "not_sent"
    assert "all_proxy must be the URL of an HTTP proxy" in str(error)
    assert "passw0rd" not in told(error)


@pytest.mark.parametrize("exempt", ["{port}", "10.0.0.0/8 127.0.0.0/8"])
async def test_what_no_proxy_exempts_is_called_directly(monkeypatch: pytest.MonkeyPatch, exempt: str) -> None:
    with Oracle(lambda seen: Reply(status=502)) as proxy, Oracle(lambda seen: answer(SMALL)) as service:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", exempt.format(port=service.url.removeprefix("http://")))
        async with AsyncInfrai("k", base_url=service.url, trust_env=True) as client:
            await client.db.project.get("p")
    assert (len(service.seen), len(proxy.seen)) == (1, 0)


def test_without_variables_the_proxy_of_the_systems_settings_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    exempt: set[str] = set()
    settings = {"https": "proxy.example:3128"}
    monkeypatch.setattr(connector, "getproxies", lambda: settings)
    monkeypatch.setattr(connector, "proxy_bypass", exempt.__contains__)
    assert connector.environment_proxy("https://api.test") == "http://proxy.example:3128"
    assert connector.environment_proxy("http://api.test") is None
    exempt.add("api.test")
    assert connector.environment_proxy("https://api.test") is None
    settings["https"] = "socks5://user:passw0rd@proxy.example"
    with pytest.raises(ConfigurationError, match=r"^the proxy in the system's settings must be .* SOCKS") as caught:
        connector.environment_proxy("https://other.test")
    assert "passw0rd" not in told(caught.value)
    monkeypatch.setenv("no_proxy", "x.test")  # any variable makes the environment count alone
    assert connector.environment_proxy("https://other.test") is None


# --- settings that are refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"proxy": "socks5://user:passw0rd@proxy"},
        {"proxy": URL("socks5://user:passw0rd@proxy")},
        {"proxy": "http://user:passw0rd@proxy:port"},
        {"base_url": "https://user:passw0rd@api.test"},
        {"base_url": "ftp://user:passw0rd@api.test"},
        {"base_url": "https://user:passw0rd@api.test:port"},
        {"base_url": "http://api.test", "proxy": "http://user:passw0rd@proxy"},
        {"max_concurrency": 0, "proxy": "http://user:passw0rd@proxy"},
        {"headers": 5, "api_key": "ifr_passw0rd"},
        {"api_key": b"ifr_passw0rd"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("face", [AsyncInfrai, Infrai])
def test_no_frame_of_a_refusal_holds_a_secret(
    monkeypatch: pytest.MonkeyPatch, face: Callable[..., object], settings: dict[str, object]
) -> None:
    monkeypatch.setenv("INFRAI_API_KEY", "ifr_passw0rd")
    with pytest.raises(InfraiError) as caught:
        face(**settings)
    assert caught.value.__traceback__ is not None
    below_this_test = caught.value.with_traceback(caught.value.__traceback__.tb_next)
    shown = traceback.TracebackException.from_exception(below_this_test, capture_locals=True)
    assert "passw0rd" not in "".join(shown.format())


@pytest.mark.parametrize(
    ("given", "fault"), [("ifr passw0rd", "a space"), ("ifr_\x00passw0rd", "a NUL"), (b"ifr_passw0rd", "of type bytes")]
)
@pytest.mark.parametrize("waits", [False, True], ids=["plain", "asynchronous"])
async def test_no_frame_holds_the_unusable_key_of_a_function(given: Any, fault: str, waits: bool) -> None:
    async def later() -> Any:
        return given

    async with AsyncInfrai(later if waits else lambda: given, base_url="http://127.0.0.1:9") as client:
        error = await failure(client)
    assert isinstance(error, ConfigurationError)
    assert "the API key from the api_key function must be a non-empty string" in str(error)
    assert fault in str(error)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename != __file__:
            assert "passw0rd" not in repr(trace.tb_frame.f_locals)
        trace = trace.tb_next
