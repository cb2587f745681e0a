"""The fixed answers that the server gives, and where they are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import cycle, repeat
from typing import Any, Final

API_KEY: Final = "ifr_benchmark_0123456789abcdef"
_NUMBER: Final = 7
PROJECT_ID: Final = f"prj_{_NUMBER:06}"  # the one in the answer, whichever is asked for
IDS: Final = 10_000  # different ones: no cache of addresses holds as many
PER_PAGE: Final = 100
PAGES: Final = 10  # of the long listing, and of each project's branches
PER_PAGES: Final = (10, 100)  # branches to a page
ANY_PROJECT: Final = "prj_000000"  # stands in the answers for whichever project is asked for

GET: Final = "/v1/db/project/get/"
LIST: Final = "/v1/db/project/list"
BRANCHES: Final = "/v1/db/branch/list"


def page_path(cursor: str | None = None) -> str:
    """Return path and query of a page of projects."""
    return f"{LIST}?{f'cursor={cursor}&' if cursor else ''}limit={PER_PAGE}"


def ids(work: str = "get") -> Iterator[str]:
    """Return the project that each call asks for: another one each time, unless the work is to ask for the same.

    The first is the one that is answered with. Threads may share it.
    """
    if work == "same":
        return repeat(PROJECT_ID)
    return cycle([f"prj_{number:06}" for number in range(_NUMBER, _NUMBER + IDS)])


def urls(url: str, work: str) -> Iterator[str]:
    """Return what each call asks for, put together when it is called for, as by hand."""
    if work == "page":
        return repeat(url + page_path())
    return (f"{url}{GET}{project}" for project in ids(work))


def by_cursor() -> dict[str, bytes]:
    """Return the body of every page of the long listing, by its cursor; the first one's is empty."""
    return _pages([_project(number) for number in range(PAGES * PER_PAGE)])


def branches(per_page: int) -> dict[str, bytes]:
    """Return the body of every page of the branches of ``ANY_PROJECT``, by its cursor."""
    return _pages([_branch(number) for number in range(PAGES * per_page)])


def _pages(items: list[dict[str, Any]]) -> dict[str, bytes]:
    cursors = ["", *(f"c{number:02}" for number in range(1, PAGES))]
    size = len(items) // PAGES
    return {
        cursor: _body({"items": items[index * size : (index + 1) * size], "next_cursor": following})
        for index, (cursor, following) in enumerate(zip(cursors, [*cursors[1:], None], strict=True))
    }


def one() -> bytes:
    """Return the body that ``db.project.get`` is answered with."""
    return project(_NUMBER)


def project(number: int, name: str | None = None) -> bytes:
    """Return the body of a project."""
    return _body(_project(number, name))


def refusal(code: str) -> bytes:
    """Return the body of an answer that refuses."""
    error = {"code": code, "message": "not now"}
    return json.dumps({"ok": False, "data": None, "error": error}, separators=(",", ":")).encode()


def _branch(number: int) -> dict[str, Any]:
    name = f"preview-{number:04}"
    return {
        "id": f"br_{ANY_PROJECT}_{number:04}",
        "branch_name": name,
        "project_id": ANY_PROJECT,
        "connection_uri": f"postgresql://app:f3Zq9sLw2RtX8vKd@ep-{name}.eu-central-1.pg.example.com:5432/app?sslmode=require",
    }


def _project(number: int, name: str | None = None) -> dict[str, Any]:
    name = name or f"tenant-{number:06}"
    return {
        "id": f"prj_{number:06}",
        "name": name,
        "region": "eu-central-1",
        "connection_uri": f"postgresql://app:f3Zq9sLw2RtX8vKd@ep-{name}.eu-central-1.pg.example.com:5432/app?sslmode=require",
        "created_at": f"2026-03-{1 + number % 28:02}T08:{number % 60:02}:17.482Z",
    }


def _body(data: object) -> bytes:
    metadata = {
        "request_id": "req_01J8Z6Y5X4W3V2T1S0R9Q8P7N6",
        "cost_usd": 0.00001,
        "latency_ms": 11.4,
        "vendor": "neon",
        "cache_hit": False,
    }
    document = {"ok": True, "data": data, "metadata": metadata}
    return json.dumps(document, separators=(",", ":")).encode()
