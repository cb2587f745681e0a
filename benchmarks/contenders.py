"""One contender in a process of its own, which works when told to and says what that cost.

It reads lines from its standard input, the number of calls to make, and answers each with one line of JSON: the calls
made and the seconds of CPU and wall time they took. It ends when its input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Final, TypeAlias

from benchmarks import answers

Call: TypeAlias = Callable[[], Awaitable[Any]]  # returns what it got: a project, a page, or how many items
Close: TypeAlias = Callable[[], Awaitable[None]]
Made: TypeAlias = tuple[Call, Close]
Spent: TypeAlias = dict[str, float]

LONGEST: Final = 5.0  # seconds for one turn, unless told otherwise, however many calls are left
KEY: Final = {"Authorization": f"Bearer {answers.API_KEY}"}


# Whoever would not have as many calls in flight by default as there are to be is allowed to.


async def naive(url: str, work: str, in_flight: int) -> Made:
    """Return what people write by hand: a default session, and ``json`` under ``async with``."""
    session, urls = _aiohttp(in_flight), answers.urls(url, work)

    async def call() -> Any:
        async with session.get(next(urls)) as response:
            return (await response.json())["data"]

    return call, session.close


async def by_orjson(url: str, work: str, in_flight: int) -> Made:
    """Return the same by those who mind what it costs: bytes, which orjson parses."""
    import orjson

    session, urls = _aiohttp(in_flight), answers.urls(url, work)

    async def call() -> Any:
        async with session.get(next(urls)) as response:
            return orjson.loads(await response.read())["data"]

    return call, session.close


async def tuned(url: str, work: str, in_flight: int) -> Made:
    """Return all that aiohttp's public settings give: no less is possible for what sends by a session of it."""
    import socket

    import aiohttp
    import orjson
    from yarl import URL

    class Socket(socket.socket):
        def recv(self, size: int, flags: int = 0, /) -> bytes:
            return super().recv(min(size, 2**16), flags)

    connector = aiohttp.TCPConnector(limit=0, socket_factory=lambda address: Socket(*address[:3]))
    session = aiohttp.ClientSession(connector=connector, headers=KEY, cookie_jar=aiohttp.DummyCookieJar())
    unlimited, base, ids = aiohttp.ClientTimeout(total=None), URL(url), answers.ids(work)
    page = URL(url + answers.page_path(), encoded=True)

    def target() -> URL:
        return page if work == "page" else base.with_path(f"{answers.GET}{next(ids)}", encoded=True)

    async def call() -> Any:
        response = await session.request("GET", target(), allow_redirects=False, timeout=unlimited)
        content = response.content
        return orjson.loads(content.read_nowait() if content.is_eof() else await response.read())["data"]

    return call, session.close


def _aiohttp(in_flight: int) -> Any:
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=max(in_flight, 100)), headers=KEY)


async def by_httpx(url: str, work: str, in_flight: int) -> Made:
    """Return the same with httpx, which may keep its connections: as it comes it would close most of them again."""
    import httpx

    client = httpx.AsyncClient(headers=KEY, limits=httpx.Limits(max_connections=max(in_flight, 100)))
    urls = answers.urls(url, work)

    async def call() -> Any:
        return (await client.get(next(urls))).json()["data"]

    return call, client.aclose


async def by_openai(url: str, work: str, in_flight: int) -> Made:
    """Return a generated SDK doing the same, typed; a thousand calls in flight are its default."""
    import openai
    from openai._base_client import make_request_options

    from benchmarks.generated import Page, Project, Response

    client, ids = openai.AsyncOpenAI(api_key=answers.API_KEY, base_url=url), answers.ids(work)

    async def get() -> Project:
        return (await client.get(f"{answers.GET}{next(ids)}", cast_to=Response)).data

    async def page() -> list[Project]:
        wanted = make_request_options(query={"limit": answers.PER_PAGE})
        return (await client.get_api_list(answers.LIST, model=Project, page=Page, options=wanted)).data.items

    return page if work == "page" else get, client.close


async def sdk(url: str, work: str, in_flight: int) -> Made:
    """Return the client doing the same, with its defaults."""
    from infrai_async import AsyncInfrai, Page, Project

    client = AsyncInfrai(answers.API_KEY, base_url=url, max_concurrency=max(in_flight, 64))
    ids = answers.ids(work)

    async def get() -> Project:
        return await client.db.project.get(next(ids))

    async def page() -> Page[Project]:
        return await client.db.project.list(limit=answers.PER_PAGE).page()

    async def pages() -> int:
        count = 0
        async for page in client.db.project.list(limit=answers.PER_PAGE).pages():
            count += len(page)
        return count

    async def items() -> int:
        count = 0
        async for _ in client.db.project.list(limit=answers.PER_PAGE):
            count += 1
        return count

    return {"get": get, "same": get, "page": page, "pages": pages, "items": items}[work], client.aclose


CONTENDERS: Final = {
    "naive": naive,
    "orjson": by_orjson,
    "tuned": tuned,
    "httpx": by_httpx,
    "openai": by_openai,
    "sdk": sdk,
}
EXPECTED: Final[dict[str, Any]] = {
    "get": answers.PROJECT_ID,
    "same": answers.PROJECT_ID,
    "page": answers.PER_PAGE,
    "pages": answers.PER_PAGE * answers.PAGES,
    "items": answers.PER_PAGE * answers.PAGES,
}


async def _turn(call: Call, calls: int, in_flight: int, *, longest: float) -> Spent:
    left = calls
    until = time.monotonic() + longest

    async def work() -> None:
        nonlocal left
        while left > 0 and time.monotonic() < until:
            left -= 1
            await call()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return {"calls": calls - left, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def serve(arguments: argparse.Namespace, work: str, turn: Callable[[Call, int, int], Awaitable[Spent]]) -> None:
    """Be the contender: see that it gets what it is meant to get, and take turns until told to end."""
    contender = CONTENDERS[arguments.contender]
    with asyncio.Runner() as runner:
        call, close = runner.run(contender(arguments.url, work, arguments.in_flight))
        check(arguments.contender, work, runner.run(_awaited(call)))
        obey(lambda calls: runner.run(_awaited(lambda: turn(call, calls, arguments.in_flight))))
        runner.run(_awaited(close))


async def _awaited(function: Callable[[], Awaitable[Any]]) -> Any:
    return await function()


# --- what every contender's process does ---


def parsed(description: str | None, contenders: Iterable[str], works: Iterable[str] = EXPECTED) -> argparse.Namespace:
    """Return what the process was told to be, and take orjson out where it is to do without."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("contender", choices=tuple(contenders))
    parser.add_argument("work", choices=tuple(works))
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--longest", type=float, default=LONGEST, metavar="SECONDS")
    parser.add_argument("--without-orjson", action="store_true")
    arguments = parser.parse_args()
    if arguments.without_orjson:
        from infrai_async._protocol import json

        vars(json)["loads"] = json.loads_by_standard_library  # as if orjson were not installed
    return arguments


def check(contender: str, work: str, got: Any) -> None:
    """End the process where a call does not get what it is meant to."""
    match got:
        case {"id": told} | object(id=told):
            pass
        case {"items": items}:
            told = len(items)
        case int():
            told = got
        case _:
            told = len(got)
    if told != EXPECTED[work]:
        raise SystemExit(f"{contender} got {told} instead of {EXPECTED[work]} for {work}")


def obey(turn: Callable[[int], Spent]) -> None:
    """Take turns when told to."""
    for line in sys.stdin:
        print(json.dumps(turn(int(line))), flush=True)


if __name__ == "__main__":
    told = parsed(__doc__, CONTENDERS)
    serve(told, told.work, partial(_turn, longest=told.longest))
