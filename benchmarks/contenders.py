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
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from benchmarks import answers

Call: TypeAlias = Callable[[], Awaitable[int]]  # returns how many items it got
Close: TypeAlias = Callable[[], Awaitable[None]]
Made: TypeAlias = tuple[Call, Close]
Spent: TypeAlias = dict[str, float]

LONGEST: Final = 5.0  # seconds for one turn, however many calls are left


async def naive(url: str, context: ssl.SSLContext | None, work: str) -> Made:
    """Return what people write by hand: a default session, and ``json`` under ``async with``."""
    import aiohttp

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


async def _turn(call: Call, calls: int, in_flight: int) -> Spent:
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


CONTENDERS: Final = {"naive": naive, "sdk": sdk}


def _serve(arguments: argparse.Namespace) -> None:
    context = ssl.create_default_context(cafile=arguments.authority) if arguments.authority else None
    with asyncio.Runner() as runner:
        call, close = runner.run(CONTENDERS[arguments.contender](arguments.url, context, arguments.work))
        check(arguments, runner.run(_awaited(call)))
        obey(lambda calls: runner.run(_turn(call, calls, arguments.in_flight)))
        runner.run(_awaited(close))


async def _awaited(function: Callable[[], Awaitable[int | None]]) -> int | None:
    return await function()


# --- what every contender's process does ---


def parsed(description: str | None, contenders: Iterable[str], works: Iterable[str] = EXPECTED) -> argparse.Namespace:
    """Return what the process was told to be, and take orjson out where it is to do without."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("contender", choices=tuple(contenders))
    parser.add_argument("work", choices=tuple(works))
    parser.add_argument("url")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--authority", help="a PEM file of the authority to trust")
    parser.add_argument("--without-orjson", action="store_true")
    arguments = parser.parse_args()
    if arguments.without_orjson:
        from infrai_async import _json

        vars(_json)["loads"] = _json.loads_by_standard_library  # as if orjson were not installed
    return arguments


def check(arguments: argparse.Namespace, got: int | None) -> None:
    """End the process where a call does not get what it is meant to."""
    if got != EXPECTED[arguments.work]:
        raise SystemExit(f"{arguments.contender} got {got} of {EXPECTED[arguments.work]} for {arguments.work}")


def obey(turn: Callable[[int], Spent]) -> None:
    """Take turns when told to."""
    for line in sys.stdin:
        print(json.dumps(turn(int(line))), flush=True)


if __name__ == "__main__":
    _serve(parsed(__doc__, CONTENDERS))
