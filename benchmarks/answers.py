"""The fixed answers that the server gives, and where they are."""

from __future__ import annotations

import json
from typing import Any, Final

API_KEY: Final = "ifr_benchmark_0123456789abcdef"
PROJECT_ID: Final = "prj_000007"
PER_PAGE: Final = 100
PAGES: Final = 10  # of the long listing

ONE: Final = f"/v1/db/project/get/{PROJECT_ID}"
LIST: Final = "/v1/db/project/list"


def page_path(cursor: str | None = None) -> str:
    """Return path and query of a page of projects."""
    return f"{LIST}?{f'cursor={cursor}&' if cursor else ''}limit={PER_PAGE}"


def by_cursor() -> dict[str, bytes]:
    """Return the body of every page of the long listing, by its cursor; the first one's is empty."""
    cursors = ["", *(f"c{number:02}" for number in range(1, PAGES))]
    return {
        cursor: _body(
            {
                "items": [_project(PER_PAGE * index + item) for item in range(PER_PAGE)],
                "next_cursor": cursors[index + 1] if index + 1 < PAGES else None,
            }
        )
        for index, cursor in enumerate(cursors)
    }


def one() -> bytes:
    """Return the body that ``db.project.get`` is answered with."""
    return _body(_project(7))


def _project(number: int) -> dict[str, Any]:
    name = f"tenant-{number:06}"
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
