"""One client in any loop, thread and process; closing it; and lending it a session."""

from __future__ import annotations

import asyncio
import builtins
import gc
import os
import pickle
import random
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import trustme
from support.oracle import SMALL, Oracle, answer
from support.patience import LONG, SOON, complaints, eventually

from infrai_async import (
    AsyncInfrai,
    ClientClosedError,
    ConfigurationError,
    ConnectError,
    InvalidArgument,
    TransportError,
)


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    def reply(seen: object) -> object:
        return answer(SMALL, delay=LONG if seen.path.endswith("slow") else 0.0)  # type: ignore[attr-defined]

    with Oracle(reply) as server:  # type: ignore[arg-type]
        yield server


async def one(client: AsyncInfrai) -> str:
    return (await client.db.project.get("p")).id


def test_one_client_serves_three_runs_of_asyncio_and_needs_no_closing(oracle: Oracle) -> None:
    client = AsyncInfrai("k", base_url=oracle.url)
    assert [asyncio.run(one(client)) for _ in range(3)] == ["p1"] * 3
    gc.collect()
    assert client.stats.connections_opened == 3


def test_one_client_serves_four_threads_with_a_loop_each(oracle: Oracle) -> None:
    client = AsyncInfrai("k", base_url=oracle.url, max_concurrency=3)
    answers: list[str] = []

    async def fifty() -> None:
        for ids in [await asyncio.gather(*(one(client) for _ in range(10))) for _ in range(5)]:
            answers.extend(ids)

    threads = [threading.Thread(target=lambda: asyncio.run(fifty())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == ["p1"] * 200
    assert oracle.most_at_once <= 3  # the limit is the client's, over all loops
    assert client.stats.in_flight == client.stats.waiting == 0


def test_a_closed_loop_that_never_ended_its_generators_is_survived(oracle: Oracle) -> None:
    client = AsyncInfrai("k", base_url=oracle.url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the transport that the loop itself left open
        loop = asyncio.new_event_loop()
        loop.run_until_complete(one(client))
        loop.close()
        assert asyncio.run(one(client)) == "p1"
        gc.collect()


FORK = """
import asyncio, os, sys, warnings
from infrai_async import AsyncInfrai
client = AsyncInfrai("k", base_url=sys.argv[1])
async def one():
    return (await client.db.project.get("p")).id
async def main():
    asyncio.get_running_loop().slow_callback_duration = 60  # of a busy machine nothing is to be said
    assert await one() == "p1"
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        try:
            os.write(1, ("child " + asyncio.run(one()) + "\\n").encode())
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)
    assert await one() == "p1"
    print("parent", client.stats.connections_opened, flush=True)
    await client.aclose()
asyncio.run(main())
"""


def test_a_forked_child_starts_with_fresh_connections_and_leaves_the_parents_alone(oracle: Oracle) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", FORK, oracle.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert complaints(done.stderr) == ""
    assert done.stdout == "child p1\nparent 1\n"
    assert [seen.connection for seen in oracle.seen] == [1, 2, 1]


def test_a_forked_child_that_ends_normally_says_nothing(oracle: Oracle) -> None:
    program = """
import asyncio, os, sys
from infrai_async import AsyncInfrai
client = AsyncInfrai("k", base_url=sys.argv[1])
async def one():
    return (await client.db.project.get("p")).id
assert asyncio.run(one()) == "p1"
child = os.fork()
if child:
    os.waitpid(child, 0)
print(asyncio.run(one()), flush=True)
"""
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program, oracle.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, complaints(done.stderr)) == ("p1\np1\n", "")


def test_a_client_is_built_outside_any_loop_and_complains_of_a_missing_key_only_when_called() -> None:
    client = AsyncInfrai()
    with pytest.raises(ConfigurationError, match=r"api_key=.*INFRAI_API_KEY.*\.infrai/credentials"):
        asyncio.run(one(client))


def test_the_key_comes_from_the_environment_or_the_file(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = os.path.join(os.environ["HOME"], ".infrai")
    os.mkdir(folder)
    with open(os.path.join(folder, "credentials"), "w") as file:
        file.write('{"api_key": "from-file"}')
    monkeypatch.setenv("INFRAI_BASE_URL", oracle.url + "/v1/")
    asyncio.run(one(AsyncInfrai()))
    monkeypatch.setenv("INFRAI_API_KEY", "from-env")
    asyncio.run(one(AsyncInfrai()))
    asyncio.run(one(AsyncInfrai("given")))
    assert [seen.headers["authorization"] for seen in oracle.seen] == [
        "Bearer from-file",
        "Bearer from-env",
        "Bearer given",
    ]


def test_discovery_needs_no_key(oracle: Oracle) -> None:
    async def main() -> None:
        async with AsyncInfrai(base_url=oracle.url) as client:
            await client.discovery.get("db.project.create")

    asyncio.run(main())
    assert "authorization" not in oracle.seen[0].headers


# --- closing -----------------------------------------------------------------------------------------------------


def test_closing_refuses_new_calls_and_those_that_wait_and_ends_those_in_flight(oracle: Oracle) -> None:
    async def main() -> None:
        client = AsyncInfrai("k", base_url=oracle.url, max_concurrency=1)
        running = asyncio.create_task(client.db.project.get("slow"))
        await eventually(lambda: oracle.seen)
        waiting = asyncio.create_task(client.db.project.get("b"))
        await eventually(lambda: client.stats.waiting == 1)
        began = time.monotonic()
        closing = asyncio.create_task(client.aclose(grace=0.5))
        with pytest.raises(ClientClosedError) as refused:
            await waiting
        assert not running.done(), "it was refused with those in flight, not before"
        with pytest.raises(ClientClosedError):
            await client.db.project.get("c")
        with pytest.raises(TransportError, match="closed") as ended:
            await running
        assert time.monotonic() - began >= 0.45
        await closing
        await client.aclose()
        assert (refused.value.outcome, ended.value.outcome) == ("not_sent", "maybe_applied")
        assert isinstance(refused.value, RuntimeError)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_call_that_ends_within_the_grace_succeeds(oracle: Oracle) -> None:
    async def main() -> None:
        with Oracle(lambda seen: answer(SMALL, delay=0.2)) as slow:
            client = AsyncInfrai("k", base_url=slow.url)
            running = asyncio.create_task(one(client))
            await eventually(lambda: slow.seen)
            began = time.monotonic()
            await client.aclose(grace=LONG)
            assert time.monotonic() - began < SOON
            assert await running == "p1"

    asyncio.run(main())


def test_closing_in_one_loop_closes_the_sessions_of_other_loops(oracle: Oracle) -> None:
    client = AsyncInfrai("k", base_url=oracle.url)
    ready, over = threading.Event(), threading.Event()

    async def elsewhere() -> None:
        await one(client)
        ready.set()
        while not over.is_set():
            await asyncio.sleep(0.01)
        with pytest.raises(ClientClosedError):
            await one(client)

    thread = threading.Thread(target=lambda: asyncio.run(elsewhere()))
    thread.start()
    assert ready.wait(10)
    asyncio.run(client.aclose())
    over.set()
    thread.join(10)
    assert not thread.is_alive()


def test_views_share_the_pool_and_cost_no_closing(oracle: Oracle) -> None:
    async def main() -> None:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            view = client.with_options(timeout=5, headers={"X-Tenant": "a"})
            await one(view)
            await one(client)
            assert client.stats == view.stats
            assert client.stats.connections_opened == 1
        with pytest.raises(ClientClosedError):
            await one(view)

    asyncio.run(main())
    assert oracle.seen[0].headers["x-tenant"] == "a"
    assert "x-tenant" not in oracle.seen[1].headers


# --- settings ----------------------------------------------------------------------------------------------------


def test_headers_of_the_caller_go_along_but_never_replace_ours(oracle: Oracle) -> None:
    given = {
        "User-Agent": "shop/2",
        "X-Team": "web",
        "authorization": "Basic x",
        "CONTENT-TYPE": "text/plain",
        "idempotency-key": "mine",
    }

    async def main() -> None:
        async with AsyncInfrai("k", base_url=oracle.url, headers=given) as client:
            await one(client)
            await client.db.project.create(name="x")

    asyncio.run(main())
    get, post = oracle.seen
    assert get.headers["user-agent"].startswith("shop/2 infrai-async/")
    assert get.headers["x-team"] == "web"
    assert get.headers["authorization"] == post.headers["authorization"] == "Bearer k"
    assert "content-type" not in get.headers
    assert "idempotency-key" not in get.headers
    assert post.headers["content-type"] == "application/json"
    assert post.headers["idempotency-key"] != "mine"


def test_a_borrowed_session_comes_back_open_and_unchanged(oracle: Oracle) -> None:
    async def main() -> None:
        requests = []

        async def on_start(session: aiohttp.ClientSession, context: object, params: object) -> None:
            requests.append(params)

        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(on_start)  # type: ignore[arg-type]
        async with aiohttp.ClientSession(
            headers={"X-App": "1"}, trace_configs=[trace], raise_for_status=True
        ) as session:
            before = {name: repr(value) for name, value in vars(session).items()}
            async with AsyncInfrai("k", base_url=oracle.url, session=session) as client:
                await one(client)
                await client.db.project.delete("p")
            assert not session.closed
            assert {name: repr(value) for name, value in vars(session).items()} == before
            async with session.get(oracle.url + "/v1/x") as response:
                assert response.status == 200
        assert len(requests) == 3  # the calls went through it

    asyncio.run(main())
    assert oracle.seen[0].headers["x-app"] == "1"
    assert len({seen.connection for seen in oracle.seen}) == 1


def test_a_borrowed_session_of_another_loop_is_refused(oracle: Oracle) -> None:
    async def lend() -> AsyncInfrai:
        session = aiohttp.ClientSession()
        client = AsyncInfrai("k", base_url=oracle.url, session=session)
        await one(client)
        await session.close()
        return client

    client = asyncio.run(lend())
    with pytest.raises(ConfigurationError, match="another event loop"):
        asyncio.run(one(client))


def test_a_company_certificate_is_trusted_when_its_context_is_given() -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    mine = ssl.create_default_context()
    authority.configure_trust(mine)

    async def main(url: str) -> None:
        async with AsyncInfrai("k", base_url=url, ssl=mine) as client:
            assert await one(client) == "p1"
        async with AsyncInfrai("k", base_url=url, timeout=5) as stranger:
            with pytest.raises(ConnectError, match=r"(?i)certificate") as caught:
                await one(stranger)
            assert caught.value.outcome == "not_sent"

    with Oracle(lambda seen: answer(SMALL), tls=server) as oracle:
        asyncio.run(main(oracle.url))
    assert len(oracle.seen) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"max_concurrency": 2.5}, "max_concurrency"),
        ({"retry": 3}, "retry"),
        ({"headers": {"a": "b\r\nc"}}, "headers"),
        ({"headers": {"a": 1}}, "headers"),
        ({"base_url": "http://api.example.com"}, "base_url"),
        ({"base_url": "ftp://x"}, "base_url"),
    ],
)
def test_a_wrong_setting_is_named_when_the_client_is_built(options: dict[str, object], named: str) -> None:
    with pytest.raises((ValueError, ConfigurationError), match=named):
        AsyncInfrai("k", **options)  # type: ignore[arg-type]


def test_plain_http_to_another_machine_needs_to_be_allowed() -> None:
    assert "compose" in repr(AsyncInfrai("k", base_url="http://compose:8080", allow_http=True))


def test_a_thousand_clients_leave_nothing_behind(oracle: Oracle) -> None:
    async def cycle() -> None:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            await one(client)

    async def many(count: int) -> None:
        for _ in range(count):
            await cycle()

    asyncio.run(many(20))
    oracle.seen.clear()
    gc.collect()
    before = len(gc.get_objects())
    asyncio.run(many(200))
    oracle.seen.clear()
    gc.collect()
    assert len(gc.get_objects()) - before < 100  # fewer than one object a client


def test_errors_of_a_real_call_pickle(oracle: Oracle) -> None:
    async def main() -> BaseException:
        async with AsyncInfrai("k", base_url="http://127.0.0.1:9", timeout=1) as client:
            try:
                await one(client)
            except ConnectError as error:
                return error
        raise AssertionError

    error = asyncio.run(main())
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), vars(again)) == (str(error), vars(error))


def test_the_key_shows_nowhere(oracle: Oracle) -> None:
    key = "ifr_pk_proj_verysecret"

    async def main() -> list[str]:
        shown = []
        async with AsyncInfrai(key, base_url=oracle.url) as client:
            await one(client)
            shown += [repr(client), repr(vars(client)), repr(client._dispatcher.pool.settings), repr(client.stats)]
            headers = client._dispatcher.options.headers
            shown += [repr(getattr(headers, name)) for name in headers.__slots__]
            shown += [repr((template.to_pass("k1"), template.complete)) for template in headers._last[1:]]
        async with AsyncInfrai(key, base_url="http://127.0.0.1:9", timeout=1) as client:
            try:
                await client.db.project.create(name="x")
            except ConnectError as error:
                shown += [repr(error), str(error), repr(error.__cause__), repr(vars(error))]
        return shown

    for text in asyncio.run(main()):
        assert "verysecret" not in text


# --- leaving nothing behind, when things go wrong ------------------------------------------------------------------

TLS_TIMEOUT = """
import asyncio, gc, ssl, sys
from infrai_async import AsyncInfrai, TimeoutError
context = ssl.create_default_context(cafile=sys.argv[2])
async def main():
    async with AsyncInfrai("k", base_url=sys.argv[1], ssl=context, timeout=1.5) as client:
        try:
            await client.db.project.get("slow")
        except TimeoutError as error:
            print(error.outcome)
        task = asyncio.create_task(client.db.project.get("slow"))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.wait([task])
asyncio.run(main())
gc.collect()
"""


def test_over_tls_too_a_call_that_ran_out_of_time_leaves_no_socket(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(server)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Oracle(lambda seen: answer(SMALL, delay=5), tls=server) as oracle:
        command = [sys.executable, "-X", "dev", "-W", "error", "-c", TLS_TIMEOUT, oracle.url, str(tmp_path / "ca.pem")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, complaints(done.stderr)) == ("maybe_applied\n", "")


def test_whoever_closes_again_waits_too_and_a_shorter_grace_shortens_it(oracle: Oracle) -> None:
    async def main() -> None:
        client = AsyncInfrai("k", base_url=oracle.url)
        call = asyncio.create_task(client.db.project.get("slow"))
        await eventually(lambda: oracle.seen)
        with pytest.raises(builtins.TimeoutError):
            async with asyncio.timeout(0.1):
                await client.aclose(grace=LONG)
        began = time.monotonic()
        first, second = asyncio.create_task(client.aclose()), asyncio.create_task(client.aclose(timedelta(0)))
        await asyncio.gather(first, second)
        assert time.monotonic() - began < SOON
        with pytest.raises(TransportError):
            await call
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


CLOSED_BY_MANY = """
import asyncio, sys, threading
from infrai_async import AsyncInfrai
async def use(client):
    await client.db.project.get("p")
    together.wait(60)
    await client.aclose(0.2)
for _ in range(5):
    client, together = AsyncInfrai("k", base_url=sys.argv[1]), threading.Barrier(4)
    threads = [threading.Thread(target=lambda: asyncio.run(use(client))) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
"""


def test_a_client_that_many_threads_close_at_once_says_nothing(oracle: Oracle) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", CLOSED_BY_MANY, oracle.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, complaints(done.stderr)) == (0, "")


def test_a_loop_that_stood_still_closes_its_part_when_it_runs_again(oracle: Oracle) -> None:
    client = AsyncInfrai("k", base_url=oracle.url)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(one(client))
    asyncio.run(client.aclose())
    loop.run_until_complete(asyncio.sleep(0.05))
    loop.close()
    del client
    gc.collect()


def test_a_client_that_is_dropped_in_a_running_loop_closes_its_connections(oracle: Oracle) -> None:
    async def main() -> None:
        for _ in range(5):
            await one(AsyncInfrai("k", base_url=oracle.url, timeout=3600))
        gc.collect()
        await eventually(lambda: not oracle._writers)

    asyncio.run(main())


def test_a_view_used_as_a_context_manager_leaves_the_client_open(oracle: Oracle) -> None:
    async def main() -> None:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            async with client.with_options(timeout=5) as view:
                await one(view)
            await one(client)

    asyncio.run(main())


def test_ten_thousand_cancelled_calls_lose_no_place(oracle: Oracle) -> None:
    async def main() -> None:
        chance = random.Random(1)
        async with AsyncInfrai("k", base_url=oracle.url, max_concurrency=5) as client:
            for _ in range(100):
                tasks = [asyncio.create_task(one(client)) for _ in range(100)]
                await asyncio.sleep(chance.random() / 500)
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
            assert client.stats.in_flight == client.stats.waiting == 0
            assert await asyncio.gather(*(one(client) for _ in range(5))) == ["p1"] * 5
            stats = client.stats
            assert stats.calls == stats.succeeded + stats.failed

    asyncio.run(main())


def test_the_same_header_in_several_spellings_overrides_nothing(oracle: Oracle) -> None:
    given = {"authorization": "A", "Authorization": "B", "idempotency-key": "1", "Idempotency-Key": "2"}

    async def main() -> None:
        async with AsyncInfrai("k", base_url=oracle.url, headers=given) as client:
            await one(client)
            await client.discovery.get("x")

    asyncio.run(main())
    assert oracle.seen[0].headers["authorization"] == "Bearer k"
    assert "idempotency-key" not in oracle.seen[0].headers
    assert "authorization" not in oracle.seen[1].headers


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": 5},
        {"ssl": "x"},
        {"session": "x"},
        {"proxy": 5},
        {"proxy": "user:passw0rd@proxy:3128"},
        {"proxy": "socks5://proxy"},
        {"headers": "abc"},
        {"headers": {"Content-Length": "3"}},
        {"headers": {"A:B": "c"}},
        {"headers": {"": "c"}},
        {"base_url": "https://a b.c"},
        {"base_url": "https://h/a b"},
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused_when_the_client_is_built(options: dict[str, object]) -> None:
    with pytest.raises((InvalidArgument, ConfigurationError), match=next(iter(options))) as caught:
        AsyncInfrai(**options)  # type: ignore[arg-type]
    assert "passw0rd" not in str(caught.value)


def test_a_key_that_could_not_be_kept_is_not_asked_for(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/dev/null")

    async def main() -> None:
        async with AsyncInfrai(base_url=oracle.url) as client:
            with pytest.raises(ConfigurationError, match="write_credentials=False"):
                await client.account.activate()
            with pytest.raises(ConfigurationError, match="INFRAI_API_KEY"):
                await one(client)

    asyncio.run(main())
    assert oracle.seen == []


def test_the_public_modules_are_attributes_before_anything_is_loaded() -> None:
    program = (
        "import infrai_async; print(infrai_async.errors.NotFoundError.__name__, infrai_async.models.Page.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert (done.stdout, complaints(done.stderr)) == ("NotFoundError Page\n", "")


def test_a_session_that_the_loop_closed_under_the_client_is_replaced(oracle: Oracle) -> None:
    async def main() -> None:
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            await one(client)
            await asyncio.get_running_loop().shutdown_asyncgens()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # of a generator begun after that, which asyncio notes
                assert await one(client) == "p1"

    asyncio.run(main())
    assert [seen.connection for seen in oracle.seen] == [1, 2]


def test_a_borrowed_session_that_changes_the_protocol_is_refused(oracle: Oracle) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession(headers={"expect": "100-continue"}) as session:
            client = AsyncInfrai("k", base_url=oracle.url, session=session)
            with pytest.raises(ConfigurationError, match="remove Expect from its headers"):
                await client.db.project.get("p")

    asyncio.run(main())
    assert oracle.seen == []


def test_no_more_than_a_hundred_pages_are_fetched_ahead() -> None:
    client = AsyncInfrai("k", base_url="http://127.0.0.1:9")
    client.db.project.list(prefetch=100)
    with pytest.raises(InvalidArgument, match="prefetch must be a whole number, 0 or more, 100 at most"):
        client.db.project.list(prefetch=101)
