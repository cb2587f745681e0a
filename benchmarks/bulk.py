"""Listing the branches of a thousand projects: one contender in a process of its own, and their measurement.

Each way of listing takes the number of projects and gives how many branches it read; it also counts that they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from importlib.util import find_spec
from statistics import median
from typing import Any, Final, TypeAlias
from urllib import error, request
from urllib.parse import urlencode

from benchmarks import answers
from benchmarks.calls import BY_HAND, HELPER, PLAIN, SPEED, Contender, take_turns
from benchmarks.contenders import Close, Spent, obey, parsed
from benchmarks.report import Result
from benchmarks.service import running

CONCURRENCY: Final = 64
_PROJECTS: Final = answers.PAGES * answers.PER_PAGE
_FEW: Final = 20  # projects for the one that takes them one after another, else it would take minutes

List: TypeAlias = Callable[[int], Awaitable[set[str]]]


async def sdk(url: str, per_page: int) -> tuple[List, Close]:
    """Return ``fan_out`` over the client with its defaults."""
    from infrai_async import AsyncInfrai, fan_out

    client = AsyncInfrai(answers.API_KEY, base_url=url)

    async def list_branches(projects: int) -> set[str]:
        parents = client.db.project.list(limit=answers.PER_PAGE, max_items=projects)
        pairs = fan_out(
            parents, lambda p: client.db.branch.list(project_id=p.id, limit=per_page), concurrency=CONCURRENCY
        )
        return {branch.id async for _, branch in pairs}

    return list_branches, client.aclose


async def by_hand(url: str, per_page: int) -> tuple[List, Close]:
    """Return what a good engineer writes with aiohttp: a listing, workers, bounded queues between them, plain dicts."""
    import aiohttp

    session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {answers.API_KEY}"})

    async def pages(path: str, **query: Any) -> AsyncIterator[list[dict[str, Any]]]:
        while True:
            async with session.get(f"{url}{path}?{urlencode(query)}") as response:
                response.raise_for_status()
                page = (await response.json())["data"]
            yield page["items"]
            if not page["next_cursor"]:
                return
            query["cursor"] = page["next_cursor"]

    async def list_branches(projects: int) -> set[str]:
        todo: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(CONCURRENCY)
        done: asyncio.Queue[tuple[dict[str, Any], list[dict[str, Any]]] | None] = asyncio.Queue(CONCURRENCY)

        async def produce() -> None:
            left = projects
            async for items in pages(answers.LIST, limit=answers.PER_PAGE):
                for project in items[:left]:
                    await todo.put(project)
                left -= len(items)
                if left <= 0:
                    break
            for _ in range(CONCURRENCY):
                await todo.put(None)

        async def work() -> None:
            while (project := await todo.get()) is not None:
                async for items in pages(answers.BRANCHES, project_id=project["id"], limit=per_page):
                    await done.put((project, items))

        async def run() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(produce())
                for _ in range(CONCURRENCY):
                    group.create_task(work())
            await done.put(None)

        running = asyncio.create_task(run())
        found = set()
        while (pair := await done.get()) is not None:
            _, items = pair
            for branch in items:
                found.add(branch["id"])
        await running
        return found

    return list_branches, session.close


async def helper(url: str, per_page: int) -> tuple[List, Close]:
    """Return the seed documents' helper, as it stands there, page after page."""

    def infrai(method: str, path: str, body: object = None) -> Any:
        req = request.Request(
            url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {answers.API_KEY}", "Content-Type": "application/json"},
        )
        try:
            with request.urlopen(req, timeout=60) as r:
                return json.loads(r.read())
        except error.HTTPError as e:
            return json.loads(e.read())

    def pages(path: str, **query: Any) -> Any:
        while True:
            page = infrai("GET", f"{path}?{urlencode(query)}")["data"]
            yield from page["items"]
            if not page["next_cursor"]:
                return
            query["cursor"] = page["next_cursor"]

    async def list_branches(projects: int) -> set[str]:
        found = set()
        for _, project in zip(range(projects), pages(answers.LIST, limit=answers.PER_PAGE), strict=False):
            found |= {branch["id"] for branch in pages(answers.BRANCHES, project_id=project["id"], limit=per_page)}
        return found

    async def close() -> None:
        pass

    return list_branches, close


CONTENDERS: Final = {"sdk": sdk, "by_hand": by_hand, "helper": helper}
WORKS: Final = {f"bulk{per_page}": per_page for per_page in answers.PER_PAGES}


def _serve(arguments: argparse.Namespace) -> None:
    per_page = WORKS[arguments.work]
    with asyncio.Runner() as runner:
        list_branches, close = runner.run(CONTENDERS[arguments.contender](arguments.url, per_page))

        async def timed(projects: int) -> Spent:
            cpu, wall = time.process_time(), time.perf_counter()
            found = len(await list_branches(projects))
            spent = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}
            if found != projects * answers.PAGES * per_page:
                raise SystemExit(f"{arguments.contender} found {found} branches of {projects} projects")
            return {"calls": projects * answers.PAGES, **spent}

        async def finish() -> None:
            await close()

        obey(lambda projects: runner.run(timed(projects)))
        runner.run(finish())


# --- measuring ---


def measure(per_page: int, *, rounds: int, turns: int) -> list[Result]:
    """Measure one length of page: wall time of a page of branches, and what it costs the server.

    The goals are for pages of ten; the seeds' helper lists a fraction of the projects, which its figure is scaled from.
    """
    case, work = f"bulk, {per_page} a page", f"bulk{per_page}"
    names = [BY_HAND, HELPER, PLAIN, *([SPEED] if find_spec("orjson") else [])]
    results = {name: Result(case, name, "us", clock="wall") for name in names}
    server = Result(case, "the server itself", "us")
    with running("listing") as service:
        for number in range(rounds):
            with ExitStack() as stack:
                before = service.figures()["cpu"]
                contenders = [
                    stack.enter_context(Contender(name, work, service.url, module="benchmarks.bulk")) for name in names
                ]
                projects = [_FEW if name == HELPER else _PROJECTS for name in names]
                spent = take_turns(
                    [lambda c=c, n=n: c.turn(n) for c, n in zip(contenders, projects, strict=True)],  # type: ignore[misc]
                    turns,
                    first=number,
                )
                pages = (turns + 1) * sum(projects) * answers.PAGES
                server.cpu.append((service.figures()["cpu"] - before) / pages * 1e6)
            for name, figures in zip(names, spent, strict=True):
                results[name].cpu.append(median(cpu for cpu, _ in figures))
                results[name].wall.append(median(wall for _, wall in figures))
    return [*_compared(results, BY_HAND, 1.05, per_page), *_compared(results, HELPER, 1 / 30, per_page), server]


def _compared(results: dict[str, Result], base: str, goal: float, per_page: int) -> list[Result]:
    """Return the base, and the client against it."""
    mine = [
        Result(
            f"{result.case}, to {base}",
            name,
            result.unit,
            goal if per_page == answers.PER_PAGES[0] else None,
            cpu=result.cpu,
            wall=result.wall,
            base=results[base],
            clock="wall",
        )
        for name, result in results.items()
        if name in (PLAIN, SPEED)
    ]
    results[base].case = mine[0].case
    return [results[base], *mine]


if __name__ == "__main__":
    _serve(parsed(__doc__, CONTENDERS, WORKS))
