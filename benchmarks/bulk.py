"""Listing the branches of a thousand projects: one contender in a process of its own, and their measurement.

Each way of listing takes the number of projects and gives how many branches it read; it also counts that they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

from benchmarks import answers
from benchmarks.blocking import seeds_helper
from benchmarks.calls import BY_HAND, HELPER, OURS, Contender, present, take_turns
from benchmarks.contenders import KEY, Close, Spent, obey, parsed
from benchmarks.report import Result, compared
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

    session = aiohttp.ClientSession(headers=KEY)

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
    """Return the seed documents' helper, page after page."""
    infrai = seeds_helper(url)

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
    names = present(BY_HAND, HELPER, *OURS)
    results = [Result(case, name, "us", clock="wall") for name in names]
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
                    [partial(contender.turn, many) for contender, many in zip(contenders, projects, strict=True)],
                    turns,
                    first=number,
                )
                pages = (turns + 1) * sum(projects) * answers.PAGES
                server.cpu.append((service.figures()["cpu"] - before) / pages * 1e6)
            for result, figures in zip(results, spent, strict=True):
                result.add(figures)
    goals = {BY_HAND: 1.05, HELPER: 1 / 30} if per_page == answers.PER_PAGES[0] else {BY_HAND: None, HELPER: None}
    return [*compared(results, {base: dict.fromkeys(OURS, goal) for base, goal in goals.items()}), server]


if __name__ == "__main__":
    _serve(parsed(__doc__, CONTENDERS, WORKS))
