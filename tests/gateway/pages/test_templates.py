"""The templates: every value in them is escaped, none may be missing, and they are found inside a zip file too."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import ZipFile

import pytest
from jinja2 import UndefinedError

import infrai_async
from infrai_async.local.http.call_log import RecentCall
from infrai_async.local.pages import checkout, dashboard
from infrai_async.local.pages.queries import Listing, Overview
from infrai_async.local.pages.rendering import render

HOSTILE = "<script>alert(1)</script>\"><img src=x onerror='alert(1)'>&amp;{{ 7 * 7 }}"
PACKAGE = Path(infrai_async.__file__).parent
CREATED = "2026-01-02T03:04:05.000Z"


class Tags(HTMLParser):
    """The tags of a page in order, with the names of their attributes, and the page's text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[str]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.text += data


def dashboard_of(name: str) -> str:
    """Render a dashboard on which every text of the state is ``name``."""
    account = {"id": name, "nano": 5, "created_at": CREATED, "checkout": name}
    database = {"id": name, "uri": name, "created_at": CREATED}
    branch = {**database, "branch_name": name, "from_branch": name}
    project = {**database, "name": name, "postgres_version": name, "snapshots": 2, "branches": Listing([branch], 3)}
    bucket = {"id": name, "bucket": name, "acl": name, "region": name, "objects": 1, "bytes": 1, "created_at": CREATED}
    distribution = {
        "origin": name,
        "edge": name,
        "enabled": True,
        "hits": 1,
        "misses": 1,
        "bytes_served": 1,
        "cache_ttl_seconds": 1,
        "created_at": CREATED,
    }
    flag = {
        "key": name,
        "archived": False,
        "enabled": True,
        "rollout": {"percentage": 12.5, "sticky_unit": name, "variants": [{}]},
        "rules": [],
        "type": name,
        "default_value": {name: name},
        "version": 1,
        "created_at": CREATED,
    }
    overview = Overview(
        account=account,
        accounts=Listing([account], 2),
        projects=Listing([project], 1),
        buckets=Listing([bucket], 1),
        distributions=Listing([distribution], 1),
        flags=Listing([flag], 1),
    )
    call = RecentCall(
        at=datetime.now(UTC),
        capability=name,
        account=name,
        status=200,
        cost="0.1",
        milliseconds="1.25",
        request_id=name,
    )
    context: Any = SimpleNamespace(
        base_url=name,
        postgres=None,
        postgres_missing=name,
        s3=None,
        recent=SimpleNamespace(newest=lambda: [call]),
    )
    return dashboard.page(overview, context)


def test_no_text_of_the_state_becomes_markup_on_the_dashboard() -> None:
    hostile, harmless = Tags(dashboard_of(HOSTILE)), Tags(dashboard_of("harmless"))
    assert hostile.found == harmless.found
    in_json = 2  # where the quotation marks are escaped for JSON
    assert hostile.text.count(HOSTILE) == harmless.text.count("harmless") - in_json


def test_a_way_back_becomes_no_markup_and_is_not_cut() -> None:
    topup = {"nano": 5, "balance": 5, "state": "paid"}
    url = f"https://shop.test{'/long' * 100}?{HOSTILE}"
    page = checkout.page({**topup, "return_url": url})
    assert Tags(page).found == Tags(checkout.page({**topup, "return_url": "https://shop.test/"})).found
    assert 'href="https://shop.test/long/long' in page
    assert "…" not in page


def test_a_value_that_is_missing_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        render("checkout.html", style="")


def run(code: str, *arguments: object, cwd: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_templates_are_compiled_only_for_a_page_and_the_client_does_without() -> None:
    code = """
import sys
import infrai_async
from infrai_async import AsyncInfrai, Infrai
print("jinja2" in sys.modules)
import infrai_async.local
from infrai_async.local.pages import rendering
print(rendering._environment.cache_info().misses)
"""
    assert run(code, cwd=PACKAGE.parent).split() == ["False", "0"]


FROM_ZIP = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])

import aiohttp
import infrai_async
from infrai_async import AsyncInfrai
from infrai_async.local import LocalGateway

async def main():
    async with LocalGateway(sys.argv[2], postgres_bin="no-postgres-here") as gateway:
        async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
            topup = await client.account.topup(amount_usd=5)
        async with aiohttp.ClientSession() as session:
            for url in (gateway.base_url, topup.checkout_url):
                async with session.get(url) as answer:
                    print(answer.status, await answer.text())

print(infrai_async.__file__)
asyncio.run(main())
"""


def test_pages_are_shown_from_inside_a_zip_file(tmp_path: Path) -> None:
    archive = tmp_path / "program.zip"
    with ZipFile(archive, "w") as packed:
        for path in PACKAGE.rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                packed.write(path, path.relative_to(PACKAGE.parent))
    shown = run(FROM_ZIP, archive, tmp_path / "data", cwd=tmp_path)
    assert shown.startswith(str(archive / "infrai_async"))
    assert re.findall("^200 <!doctype html>", shown, re.MULTILINE) == ["200 <!doctype html>"] * 2
    assert "<h1>Infrai local gateway</h1>" in shown
    assert "<h1>Top up 5.00 USD</h1>" in shown
