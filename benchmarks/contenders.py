"""One contender in a process of its own, which works when told to and says what that cost.

It reads lines from its standard input, the number of calls to make, and answers each with one line of JSON: the calls
made and the seconds of CPU and wall time they took. It ends when its input does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import aiohttp

from benchmarks import answers

Call: TypeAlias = Callable[[], Awaitable[int]]  # returns how many items it got
Close: TypeAlias = Callable[[], Awaitable[None]]
Made: TypeAlias = tuple[Call, Close]

LONGEST: Final = 5.0  # seconds for one turn, however many calls are left


async def naive(url: str, context: ssl.SSLContext | None, work: str) -> Made:
    """Return what people write by hand: a default session, and ``json`` under ``async with``."""
    connector = None if context is None else aiohttp.TCPConnector(ssl=context)
    session = aiohttp.ClientSession(connector=connector, headers={"Authorization": f"Bearer {answers.API_KEY}"})
    whole = url + (answers.ONE if work == "get" else answers.page_path())

    async def get() -> int:
        async with session.get(whole) as response:
            return int((await response.json())["data"]["id"] == answers.PROJECT_ID)

    async def page() -> int:
        async with session.get(whole) as response:
            return len((await response.json())["data"]["items"])

    return {"get": get, "page": page}[work], session.close


async def sdk(url: str, context: ssl.SSLContext | None, work: str) -> Made:
    """Return the client doing the same, with its defaults."""
    from infrai_async import AsyncInfrai

    client = AsyncInfrai(answers.API_KEY, base_url=url, ssl=context)

    async def get() -> int:
        return int((await client.db.project.get(answers.PROJECT_ID)).id == answers.PROJECT_ID)

    async def page() -> int:
        return len(await client.db.project.list(limit=answers.PER_PAGE).page())

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

    return {"get": get, "page": page, "pages": pages, "items": items}[work], client.aclose


EXPECTED: Final = {
    "get": 1,
    "page": answers.PER_PAGE,
    "pages": answers.PER_PAGE * answers.PAGES,
    "items": answers.PER_PAGE * answers.PAGES,
}


async def _turn(call: Call, calls: int, in_flight: int) -> dict[str, float]:
    left = calls
    until = time.monotonic() + LONGEST

    async def work() -> None:
        nonlocal left
        while left > 0 and time.monotonic() < until:
            left -= 1
            await call()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(in_flight)))
    return {"calls": calls - left, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def _serve(arguments: argparse.Namespace) -> None:
    if arguments.without_orjson:
        from infrai_async import _json

        vars(_json)["orjson"] = None  # as if it were not installed
    context = ssl.create_default_context(cafile=arguments.authority) if arguments.authority else None
    make = {"naive": naive, "sdk": sdk}[arguments.contender]
    with asyncio.Runner() as runner:
        call, close = runner.run(make(arguments.url, context, arguments.work))
        got = runner.run(_awaited(call))
        if got != EXPECTED[arguments.work]:
            raise SystemExit(f"{arguments.contender} got {got} of {EXPECTED[arguments.work]} for {arguments.work}")
        for line in sys.stdin:
            print(json.dumps(runner.run(_turn(call, int(line), arguments.in_flight))), flush=True)
        runner.run(_awaited(close))


async def _awaited(function: Callable[[], Awaitable[int | None]]) -> int | None:
    return await function()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender", choices=("naive", "sdk"))
    parser.add_argument("work", choices=tuple(EXPECTED))
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--authority", help="a PEM file of the authority to trust")
    parser.add_argument("--without-orjson", action="store_true")
    _serve(parser.parse_args())
