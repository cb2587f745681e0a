"""One blocking contender in a process of its own: as ``contenders``, with threads that wait instead of tasks."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias
from urllib import error, request

from benchmarks import answers
from benchmarks.contenders import KEY, Spent, check, obey, parsed

Call: TypeAlias = Callable[[], Any]
Close: TypeAlias = Callable[[], None]
Made: TypeAlias = tuple[Callable[[], Call], Close]  # the first makes a call for one thread


def by_requests(url: str, _: str) -> Made:
    """Return what people write by hand: a session, one for each thread, and ``json``."""
    import requests

    sessions: list[requests.Session] = []
    ids = answers.ids()

    def new() -> Call:
        session = requests.Session()
        sessions.append(session)
        session.headers.update(KEY)
        return lambda: session.get(f"{url}{answers.GET}{next(ids)}").json()["data"]

    def close() -> None:
        for session in sessions:
            session.close()

    return new, close


def by_httpx(url: str, _: str) -> Made:
    """Return the same with httpx, whose client all threads share."""
    import httpx

    client, ids = httpx.Client(headers=KEY), answers.ids()
    return lambda: lambda: client.get(f"{url}{answers.GET}{next(ids)}").json()["data"], client.close


def by_openai(url: str, _: str) -> Made:
    """Return the same with a generated SDK, typed, whose client all threads share."""
    import openai

    from benchmarks.generated import Response

    client, ids = openai.OpenAI(api_key=answers.API_KEY, base_url=url), answers.ids()
    return lambda: lambda: client.get(f"{answers.GET}{next(ids)}", cast_to=Response).data, client.close


def by_helper(url: str, _: str) -> Made:
    """Return the same with the seed documents' helper."""
    infrai, ids = seeds_helper(url), answers.ids()
    return lambda: lambda: infrai("GET", f"{answers.GET}{next(ids)}")["data"], lambda: None


def seeds_helper(url: str) -> Callable[..., Any]:
    """Return the helper as it stands in the seed documents: a connection for each call."""

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

    return infrai


def sdk(url: str, work: str) -> Made:
    """Return the blocking client with its defaults, which all threads share."""
    from infrai_async import Infrai, Page, Project
    from infrai_async._listing.cursor import Cursor as AsyncCursor
    from infrai_async.sync import Cursor

    if work != "get" and hasattr(os, "sched_setaffinity"):  # else waking another processor costs more than the items
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    client, ids = Infrai(answers.API_KEY, base_url=url), answers.ids()

    def get() -> Project:
        return client.db.project.get(next(ids))

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

    call: Call = {"get": get, "pages": pages, "items": items}[work]
    return lambda: call, client.close


CONTENDERS: Final = {
    "requests": by_requests,
    "httpx": by_httpx,
    "openai": by_openai,
    "helper": by_helper,
    "sdk": sdk,
}


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
        check(arguments.contender, arguments.work, call())

    def turn(wanted: int) -> Spent:
        numbers, until = iter(range(wanted)), time.monotonic() + arguments.longest
        cpu, wall = time.process_time(), time.perf_counter()
        made = sum(threads.map(lambda call: _work(call, numbers, until), calls))
        return {"calls": made, "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}

    with ThreadPoolExecutor(len(calls)) as threads:
        obey(turn)
    close()


if __name__ == "__main__":
    _serve(parsed(__doc__, CONTENDERS))
