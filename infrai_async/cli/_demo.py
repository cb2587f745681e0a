"""``infrai-async demo``: a run of all services on this machine, with a report of results and cost."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import aiohttp
import asyncpg
from aiohttp import web
from yarl import URL

from infrai_async import AsyncInfrai, Branch, Project, RolloutConfig
from infrai_async.cli._output import Exit, complain, note, on_terminal, write_json, write_step, write_table
from infrai_async.cli._progress import Advance, progress
from infrai_async.cli._signals import cancel_on_signals
from infrai_async.cli._tally import Tally
from infrai_async.local import LocalGateway

_REGIONS: Final = ("us-east-1", "eu-central-1", "ap-southeast-1")
_CONNECT_SECONDS: Final = 30
_USERS: Final = 10
_HELLO: Final = b"hello from the demo"
_PAGE: Final = b"<!doctype html><title>demo</title><p>from the origin"
_VISITORS: Final = 10


class Mismatch(Exception):
    """A step succeeded, but with an unexpected result."""


def demo(typed: Namespace) -> int:
    """Run the demo.

    Args:
        typed: the parsed arguments of the command.

    Returns:
        The exit code.
    """
    return asyncio.run(_demo(typed))


async def _demo(typed: Namespace) -> Exit:
    tally, ok = Tally(), False
    with cancel_on_signals():
        try:
            await _play(typed, tally)
            ok = True
        except asyncio.CancelledError:
            if not tally.interrupted:  # otherwise it was reported before clearing up
                complain("interrupted")
            tally.interrupted = True
        except BrokenPipeError:
            raise  # stdout has no reader any more
        except Exception as error:  # noqa: BLE001 - the last line must report any kind of failure
            complain(error)
    _conclude(tally, ok=ok)
    return Exit.OK if ok else Exit.FAILED


async def _play(typed: Namespace, tally: Tally) -> None:
    async with LocalGateway(postgres_dsn=typed.postgres_dsn, postgres_bin=typed.postgres_bin) as gateway:
        try:
            await _use(gateway, typed, tally)
        except asyncio.CancelledError:
            tally.interrupted = True
            raise
        finally:
            tally.end()
            _report(tally)
            note("infrai-async: interrupted; clearing up" if tally.interrupted else "clearing up")


async def _use(gateway: LocalGateway, typed: Namespace, tally: Tally) -> None:
    note(f"a gateway for this demo runs at {gateway.base_url}")
    async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url, max_concurrency=typed.concurrency) as client:
        try:
            await _Demo(client, typed, tally).play()
        finally:
            tally.stats = client.stats


def _report(tally: Tally) -> None:
    """Show the results before clearing up, which takes a while; on a terminal not if the demo was interrupted."""
    if not on_terminal():
        write_table(tally.by_region())
    elif not tally.interrupted:
        write_table([*tally.by_region(), tally.total()])


def _conclude(tally: Tally, *, ok: bool) -> None:
    """Report at the very end whether everything worked, including clearing up."""
    summary = tally.summary(ok=ok)
    if not on_terminal():
        write_json(summary)
    elif not tally.interrupted:
        outcome = "It all worked" if ok else "It did not all work"
        figures = "{calls} calls, {seconds} s, {cost_usd} USD of the local wallet".format_map(summary)
        print(f"{outcome}: {figures}.", flush=True)


class _Demo:
    """The steps of the demo, in order. Each reports what it did, and raises if a result is not as expected."""

    def __init__(self, client: AsyncInfrai, typed: Namespace, tally: Tally) -> None:
        self._client = client
        self._typed = typed
        self._tally = tally

    async def play(self) -> None:
        """Run all steps."""
        before = (await self._client.account.balance()).balance_usd
        await self._create_projects()
        await self._create_branches()
        await self._list()
        await self._query()
        await self._store()
        await self._deliver()
        await self._evaluate_flag()
        after = (await self._client.account.balance()).balance_usd
        _check("the amount taken from the wallet", before - after, self._client.stats.cost_usd)
        write_step("wallet", f"{before} USD before, {after} USD after", before=float(before), after=float(after))

    # --- databases ---------------------------------------------------------------------------------------------

    async def _create_projects(self) -> None:
        names = [(f"demo-{n}", _REGIONS[n % len(_REGIONS)]) for n in range(self._typed.projects)]
        await self._run_concurrently("creating projects", [partial(self._create_project, *name) for name in names])
        count = len(self._tally.projects)
        write_step("projects", f"{count} created, a Postgres database each", created=count)

    async def _create_project(self, name: str, region: str) -> None:
        self._tally.add_project(await self._client.db.project.create(name=name, region=region))

    async def _create_branches(self) -> None:
        names = [(project, f"branch-{n}") for n in range(self._typed.branches) for project in self._tally.projects]
        await self._run_concurrently("creating branches", [partial(self._create_branch, *name) for name in names])
        count = len(self._tally.branches)
        write_step("branches", f"{count} created, each a copy of its project's database", created=count)

    async def _create_branch(self, project: Project, name: str) -> None:
        branch = await self._client.db.branch.create(project_id=project.id, branch_name=name)
        self._tally.add_branch(branch, project)

    async def _run_concurrently(self, title: str, calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Make calls concurrently. The semaphore starts each call's timeout only when the call is about to be sent."""
        slots = asyncio.Semaphore(self._typed.concurrency)

        async def make(call: Callable[[], Awaitable[None]]) -> None:
            async with slots:
                await call()
            advance()

        with progress(title, len(calls)) as advance:
            async with asyncio.TaskGroup() as group:
                for call in calls:
                    group.create_task(make(call))

    async def _list(self) -> None:
        """List all projects and, while their pages are still arriving, the branches of those listed so far."""
        tally, few = self._tally, max(1, self._typed.projects // 3)
        with progress("listing branches", self._typed.projects) as advance:
            async with asyncio.TaskGroup() as group:
                async for page in self._client.db.project.list(limit=few).pages():
                    tally.pages += 1
                    tally.listed_projects += page
                    for project in page:
                        group.create_task(self._list_branches(project, advance))
        _check_listed("projects", tally.listed_projects, tally.projects)
        _check_listed("branches", tally.listed_branches, tally.branches)
        found = {"projects": len(tally.listed_projects), "branches": len(tally.listed_branches), "pages": tally.pages}
        write_step("lists", "{projects} projects, {branches} branches on {pages} pages".format_map(found), **found)

    async def _list_branches(self, project: Project, advance: Advance) -> None:
        few = max(1, self._typed.branches // 2)
        async for page in self._client.db.branch.list(project_id=project.id, limit=few).pages():
            self._tally.pages += 1
            self._tally.listed_branches += page
        advance()

    async def _query(self) -> None:
        """Write a row into a branch, read it back, and check that the branch's source project does not have it."""
        branch = self._tally.branches[0]
        project = next(project for project in self._tally.projects if project.id == branch.project_id)
        async with _connected(branch.connection_uri) as connection:
            await connection.execute("create table visits (page text not null)")
            await connection.execute("insert into visits values ($1)", "/checkout")
            row = await connection.fetchval("select page from visits")
        async with _connected(project.connection_uri) as connection:
            in_source = await connection.fetchval("select to_regclass('visits') is not null")
        _check("the row read back from a branch", row, "/checkout")
        _check("whether the branch's source has its table", in_source, False)
        text = f"wrote {row!r} into {branch.masked_uri} and read it back; its source does not have it"
        write_step("sql", text, branch=branch.masked_uri, row=row, in_source=in_source)

    # --- the other services ------------------------------------------------------------------------------------

    async def _store(self) -> None:
        bucket = (await self._client.storage.bucket.create(bucket="demo")).bucket
        upload = await self._client.storage.object.presign(bucket=bucket, key="hello.txt", method="PUT")
        download = await self._client.storage.object.presign(bucket=bucket, key="hello.txt", method="GET")
        read = await _round_trip(upload.url, download.url, _HELLO)
        _check("the object", read, _HELLO)
        url = upload.url.partition("?")[0]  # without the signature
        text = f"bucket {bucket!r}; put {len(_HELLO)} bytes to {url} and got them back, both over signed URLs"
        write_step("storage", text, bucket=bucket, url=url, bytes=len(read))

    async def _deliver(self) -> None:
        async with _origin() as (origin, requested):
            distribution = await self._client.cdn.distribution.create(origin=origin, cache_ttl_seconds=60)
            pages = await _visit(f"{distribution.edge_url}/index.html", _VISITORS)
            stats = await self._client.cdn.cache.stats(distribution_id=distribution.distribution_id)
        _check("the pages through the edge", pages, [_PAGE] * _VISITORS)
        _check("the paths requested from the origin", requested, ["/index.html"])
        _check("the requests that the edge counted", stats.requests, _VISITORS)
        text = (
            f"{len(pages)} visitors got a page through {distribution.edge_url}; its origin got {len(requested)} request"
        )
        url, fetched = distribution.edge_url, len(requested)
        write_step("cdn", text, url=url, served=len(pages), fetched=fetched, hits=stats.hit_ratio)

    async def _evaluate_flag(self) -> None:
        flags, half = self._client.flags, RolloutConfig(percentage=50, salt="demo")
        flag = await flags.set("new-checkout", type="bool", default_value=False, rollout=half)
        users = [f"user-{n}" for n in range(_USERS)]
        states = await asyncio.gather(*(flags.is_enabled(flag.key, user_id=user) for user in users))
        values = await asyncio.gather(*(flags.get_value(flag.key, user_id=user) for user in users))
        _check("the flag's values", [value.value for value in values], [state.enabled for state in states])
        on = sum(map(bool, states))
        text = f"{flag.key!r}, rolled out to 50 % of the users, is on for {on} of {len(users)}"
        write_step("flags", text, key=flag.key, users=len(users), on=on)


async def _round_trip(upload: str, download: str, data: bytes) -> bytes:
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        async with session.put(URL(upload, encoded=True), data=data):
            pass
        async with session.get(URL(download, encoded=True)) as response:
            return await response.read()


@asynccontextmanager
async def _origin() -> AsyncIterator[tuple[str, list[str]]]:
    """Serve a page on loopback, and record the requested paths."""
    requested: list[str] = []

    async def serve(request: web.BaseRequest) -> web.Response:
        requested.append(request.path)
        return web.Response(body=_PAGE, content_type="text/html")

    runner = web.ServerRunner(web.Server(serve))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", requested
    finally:
        await runner.cleanup()


async def _visit(url: str, times: int) -> list[bytes]:
    async def visit() -> bytes:
        async with session.get(url) as response:
            return await response.read()

    async with aiohttp.ClientSession(raise_for_status=True) as session:
        return list(await asyncio.gather(*(visit() for _ in range(times))))


@asynccontextmanager
async def _connected(uri: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(uri, timeout=_CONNECT_SECONDS)
    try:
        yield connection
    finally:
        await connection.close()


def _check_listed(what: str, listed: Sequence[Project | Branch], created: Sequence[Project | Branch]) -> None:
    """Check that a list contains everything that was created, exactly once."""
    found, wanted = (Counter(model.id for model in models) for models in (listed, created))
    missing, excess = (wanted - found).total(), (found - wanted).total()
    if missing or excess:
        raise Mismatch(f"the list of {what} lacks {missing} that were created and has {excess} too many")


def _check(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise Mismatch(f"{what}: {found!r}, but expected {wanted!r}")
