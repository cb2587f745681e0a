"""One blocking contender in a process of its own: as ``contenders``, with threads that wait instead of tasks."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

from benchmarks import answers
from benchmarks.contenders import LONGEST, Spent, check, obey, parsed

Call: TypeAlias = Callable[[], int]  # returns how many items it got
Close: TypeAlias = Callable[[], None]
Made: TypeAlias = tuple[Callable[[], Call], Close]  # the first makes a call for one thread

_KEY: Final = {"Authorization": f"Bearer {answers.API_KEY}"}


def by_requests(url: str, _: str) -> Made:
    """Return what people write by hand: a session, one for each thread, and ``json``."""
    import requests

    sessions: list[requests.Session] = []

    def new() -> Call:
        session = requests.Session()
        sessions.append(session)
        session.headers.update(_KEY)
        return lambda: int(session.get(url + answers.ONE).json()["data"]["id"] == answers.PROJECT_ID)

    def close() -> None:
        for session in sessions:
            session.close()

    return new, close


def by_httpx(url: str, _: str) -> Made:
    """Return the same with httpx, whose client all threads share."""
    import httpx

    client = httpx.Client(headers=_KEY)

    def get() -> int:
        return int(client.get(url + answers.ONE).json()["data"]["id"] == answers.PROJECT_ID)

    return lambda: get, client.close


def sdk(url: str, work: str) -> Made:
    """Return the blocking client with its defaults, which all threads share."""
    from infrai_async import Infrai, Page, Project
    from infrai_async._cursor import Cursor as AsyncCursor
    from infrai_async.sync import Cursor

    if work != "get" and hasattr(os, "sched_setaffinity"):  # else waking another processor costs more than the items
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    client = Infrai(answers.API_KEY, base_url=url)

    def get() -> int:
        return int(client.db.project.get(answers.PROJECT_ID).id == answers.PROJECT_ID)

    position, ready = None, dict[str | None, Page[Project]]()
    for page in client.db.project.list(limit=answers.PER_PAGE).pages() if work != "get" else ():
        ready[position], position = page, page.next_cursor

    async def fetch(position: str | None) -> Page[Project]:
        return ready[position]

    def cursor() -> Cursor[Project]:
        """Return a listing whose pages are there: what is left is the way into the loop, and the items."""
        return Cursor(AsyncCursor(fetch, capability="db.project.list"), client._runner)

    def pages() -> int:
        count = 0
        for page in cursor().pages():
            count += len(page)
        return count

    def items() -> int:
        count = 0
        for _ in cursor():
            count += 1
        return count

    call = {"get": get, "pages": pages, "items": items}[work]
    return lambda: call, client.close


CONTENDERS: Final = {"requests": by_requests, "httpx": by_httpx, "sdk": sdk}


def _work(call: Call, numbers: Iterator[int], until: float) -> int:
    count = 0
    for _ in numbers:  # which the threads share
        call()
        count += 1
        if time.monotonic() > until:
            break
    return count


def _serve(arguments: argparse.Namespace) -> None:
    new, close = CONTENDERS[arguments.contender](arguments.url, arguments.work)
    calls = [new() for _ in range(arguments.in_flight)]
    for call in calls:
        check(arguments, call())

    def turn(wanted: int) -> Spent:
        numbers, until = iter(range(wanted)), time.monotonic() + LONGEST
        cpu, wall = time.process_time(), time.perf_counter()
        made = sum(threads.map(lambda call: _work(call, numbers, until), calls))
        return {"calls": made, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}

    with ThreadPoolExecutor(len(calls)) as threads:
        obey(turn)
    close()


if __name__ == "__main__":
    _serve(parsed(__doc__, CONTENDERS))
