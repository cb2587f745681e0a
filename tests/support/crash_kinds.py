"""The kinds of load of the crash test: what each writes, and what has to be there afterwards.

Names are never used twice, so one that is there once has had one effect.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

import aiohttp
import asyncpg

from support.crash import PATIENCE, Interrupted, World

CREATE, WRITE, FREE = "0.001", "0.0001", "0"
_BROKEN_OFF = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


@dataclass(eq=False)
class Database:
    """A project, branch or snapshot.

    Attributes:
        parent: the project that takes it along when it goes.
        sure: rows that have to be there.
        maybe: rows that may be there, the sure ones included.
        end: the ways of deleting it, if it has one of its own.
    """

    thing: str
    name: str
    parent: Database | None
    sure: set[int] = field(default_factory=set)
    maybe: set[int] = field(default_factory=set)
    id: str = ""
    uri: str = ""
    deleted: bool = False

    @property
    def there(self) -> bool:
        return bool(self.id) and not self.deleted and (self.parent is None or self.parent.there)


class Databases:
    """Projects, branches, snapshots, restores, deletions."""

    workers = 4
    pause = 0.02
    most = 10

    def __init__(self, world: World) -> None:
        self.world = world
        self.all: list[Database] = []

    def there(self, *things: str) -> list[Database]:
        return [database for database in self.all if database.there and database.thing in things]

    async def step(self) -> None:
        projects, copies = self.there("project"), self.there("branch")
        snapshots = self.there("snapshot")
        if len(projects) < 3:
            return await self._project()
        if len(projects) + len(copies) + len(snapshots) > self.most:
            return await self._delete(self.world.random.choice(projects + 2 * copies))
        steps: list[Callable[[], Any]] = [
            self._project,
            partial(self._branch, self.world.random.choice(projects + copies)),
            partial(self._branch, self.world.random.choice(projects)),
            partial(self._snapshot, self.world.random.choice(projects)),
            partial(self._delete, self.world.random.choice(projects + copies)),
        ]
        if snapshots:
            steps.append(partial(self._restore, self.world.random.choice(snapshots)))
        return await self.world.random.choice(steps)()

    async def _project(self) -> None:
        made = Database("project", self.world.name("project"), None)
        await self._create(made, None, "/v1/db/project/create", {"name": made.name})

    async def _branch(self, source: Database) -> None:
        project = source.parent or source
        made = Database("branch", self.world.name("branch"), project)
        body = {"project_id": project.id, "branch_name": made.name}
        body |= {"from_branch": source.id} if source is not project else {}
        await self._create(made, source, "/v1/db/branch/create", body)

    async def _snapshot(self, project: Database) -> None:
        made = Database("snapshot", self.world.name("label"), project)
        await self._create(made, project, "/v1/db/snapshot/create", {"project_id": project.id, "label": made.name})

    async def _restore(self, snapshot: Database) -> None:
        made = Database("project", self.world.name("restored"), None)
        await self._create(made, snapshot, f"/v1/db/snapshot/restore/{snapshot.id}", {"new_name": made.name})

    async def _create(self, made: Database, source: Database | None, path: str, body: Any) -> None:
        made.sure = set(source.sure) if source else set()

        def accept(data: Any) -> None:
            made.maybe |= source.maybe if source else set()
            made.id, made.uri = data["id"], data.get("connection_uri", "")
            self.all.append(made)
            self.world.count[made.name.rstrip("0123456789")] += 1

        await self.world.write("POST", path, body, price=CREATE, accept=accept)

    async def _delete(self, database: Database) -> None:
        def accept(_: Any) -> None:
            database.deleted = True
            self.world.count[f"deleted {database.thing}"] += 1

        path = f"/v1/db/{database.thing}/delete/{database.id}"
        await self.world.write("DELETE", path, None, price=FREE, accept=accept)

    async def check(self) -> None:
        await self._check_lists()
        self.all = [database for database in self.all if database.there]
        await asyncio.gather(*(self._check_rows(database) for database in self.there("project", "branch")))
        await self.world.check_databases(len(self.all))

    async def _check_lists(self) -> None:
        for thing, named in (("project", "name"), ("branch", "branch_name"), ("snapshot", "label")):
            page = await self.world.read(f"/v1/db/{thing}/list?limit=1000")
            found = sorted((item[named], item["id"]) for item in page["items"])
            assert found == sorted((database.name, database.id) for database in self.there(thing))

    async def _check_rows(self, database: Database) -> None:
        """The address is that of before the crash; what is found is what is sure from now on."""
        connection = await asyncpg.connect(database.uri)
        try:
            found: set[int] = set()
            with suppress(asyncpg.UndefinedTableError):
                found = {row["n"] for row in await connection.fetch("select n from rows")}
        finally:
            await connection.close()
        assert database.sure <= found <= database.maybe, database
        database.sure, database.maybe = found, set(found)


class Rows:
    """Rows written through connection URIs, as applications do."""

    workers = 2
    pause = 0.01

    def __init__(self, world: World, databases: Databases) -> None:
        self.world = world
        self.databases = databases
        self._numbers: Iterator[int] = iter(range(1, 10**9))

    async def step(self) -> None:
        there = self.databases.there("project", "branch")
        if there:
            database, number = self.world.random.choice(there), next(self._numbers)
            database.maybe.add(number)
            with suppress(*_BROKEN_OFF):  # by a copy, a deletion or a crash: then the row may be there or not
                await self._insert(database.uri, number)
                database.sure.add(number)
                self.world.count["row"] += 1

    async def _insert(self, uri: str, number: int) -> None:
        connection = await asyncpg.connect(uri, timeout=5)
        try:
            await connection.execute("create table if not exists rows (n int)")
            await connection.execute("insert into rows values ($1)", number)
        finally:
            connection.terminate()

    async def check(self) -> None:
        """The databases' own check reads them."""


class Buckets:
    workers = 1
    pause = 0.03

    def __init__(self, world: World) -> None:
        self.world = world
        self.names: list[str] = []

    async def step(self) -> None:
        name = self.world.name("bucket")
        accept = lambda _: self.names.append(name)  # noqa: E731
        await self.world.write("POST", "/v1/storage/buckets", {"bucket": name}, price=WRITE, accept=accept)

    async def check(self) -> None:
        items = (await self.world.read("/v1/storage/buckets"))["items"]
        assert sorted(item["bucket"] for item in items) == sorted(self.names)
        self.world.count["bucket"] = len(self.names)


class Distributions:
    workers = 1
    pause = 0.02
    most = 40

    def __init__(self, world: World) -> None:
        self.world = world
        self.ttl: dict[str, int] = {}

    async def step(self) -> None:
        id = self.world.random.choice([*self.ttl, None])
        if id is None:
            accept = lambda data: self.ttl.update({data["distribution_id"]: 60})  # noqa: E731
            body = {"origin": "https://example.com", "cache_ttl_seconds": 60}
            await self.world.write("POST", "/v1/cdn/distribution/create", body, price=CREATE, accept=accept)
        elif len(self.ttl) > self.most or self.world.random.random() < 0.2:
            path = f"/v1/cdn/distribution/delete/{id}"
            await self.world.write("DELETE", path, None, price=FREE, accept=lambda _: self.ttl.pop(id))
        else:
            ttl = self.world.random.randrange(10_000)
            accept = lambda _: self.ttl.update({id: ttl})  # noqa: E731
            path = f"/v1/cdn/distribution/update/{id}"
            await self.world.write("PATCH", path, {"cache_ttl_seconds": ttl}, price=WRITE, accept=accept)
        self.world.count["distribution"] += 1

    async def check(self) -> None:
        page = await self.world.read("/v1/cdn/distribution/list?limit=1000")
        found = sorted((item["distribution_id"], item["cache_ttl_seconds"]) for item in page["items"])
        assert found == sorted(self.ttl.items())


@dataclass(eq=False)
class Flag:
    key: str
    version: int = 0
    enabled: bool = True
    description: str | None = None
    percentage: int | None = None
    busy: bool = False


class Flags:
    """Flags set, toggled, rolled out and deleted; of one flag one write at a time, so that its version is known."""

    workers = 2
    pause = 0.01
    most = 40

    def __init__(self, world: World) -> None:
        self.world = world
        self.all: list[Flag] = []

    async def step(self) -> None:
        free = [flag for flag in self.all if not flag.busy]
        random = self.world.random
        if not free or random.random() < 0.2:
            flag = Flag(self.world.name("flag"))
            await self._write(flag, "POST", "/v1/flags/set", {"key": flag.key, "type": "bool"}, {})
        elif len(self.all) > self.most or random.random() < 0.1:
            flag = random.choice(free)
            await self._write(flag, "DELETE", f"/v1/flags/delete/{flag.key}", None, {})
        else:
            flag, text, number, on = random.choice(free), self.world.name("text"), random.randrange(101), flip(random)
            version = {"version": flag.version}
            method, path, body, change = random.choice(
                [
                    ("POST", "/v1/flags/set", {"key": flag.key, "description": text}, {"description": text}),
                    ("POST", f"/v1/flags/toggle/{flag.key}", {"enabled": on} | version, {"enabled": on}),
                    (
                        "POST",
                        f"/v1/flags/rollout/{flag.key}",
                        {"percentage": number, "salt": "s", "sticky_unit": "user_id", "variants": []} | version,
                        {"percentage": number},
                    ),
                ]
            )
            await self._write(flag, method, path, body, change)

    async def _write(self, flag: Flag, method: str, path: str, body: Any, change: dict[str, Any]) -> None:
        flag.busy = True

        def accept(_: Any) -> None:
            flag.busy = False
            self.world.count["flag"] += 1
            if method == "DELETE":
                self.all.remove(flag)
                return
            for name, value in change.items():
                setattr(flag, name, value)
            flag.version += 1
            if flag.version == 1:
                self.all.append(flag)

        def refuse() -> None:
            raise AssertionError(f"{method} {path} {body}: nobody else has written {flag}")

        price = FREE if method == "DELETE" else WRITE
        await self.world.write(method, path, body, price=price, accept=accept, refuse=refuse)

    async def check(self) -> None:
        items = (await self.world.read("/v1/flags/list?limit=1000"))["items"]
        found = [(item["key"], item["version"], item["enabled"], item["description"], _share(item)) for item in items]
        known = [(flag.key, flag.version, flag.enabled, flag.description, flag.percentage) for flag in self.all]
        assert sorted(found) == sorted(known)


def flip(random: Any) -> bool:
    return bool(random.getrandbits(1))


def _share(flag: Any) -> int | None:
    return flag["rollout"] and flag["rollout"]["percentage"]


class TopUps:
    """Top-ups that are asked for; no answer of the API lists them, so the state is asked."""

    workers = 1
    pause = 0.03

    def __init__(self, world: World) -> None:
        self.world = world
        self.ids: list[str] = []

    async def step(self) -> None:
        accept = lambda data: self.ids.append(data["topup_id"])  # noqa: E731
        body = {"amount_usd": 5, "return_url": "http://localhost/"}
        await self.world.write("POST", "/v1/account/topup", body, price=FREE, accept=accept)

    async def check(self) -> None:
        asked_for = self.world.state("select id from topups where nano = 5000000000")
        assert sorted(id for (id,) in asked_for) == sorted(self.ids)
        self.world.count["top-up"] = len(self.ids)


@dataclass(eq=False)
class Stored:
    """An object's place: what its bytes may be; ``None`` stands for no object."""

    key: str
    may_be: set[bytes | None] = field(default_factory=lambda: {None})
    busy: bool = False


class Objects:
    """Objects put, written over and deleted; of one key one request at a time."""

    workers = 3
    pause = 0.01
    bucket = "objects"

    def __init__(self, world: World, buckets: Buckets) -> None:
        self.world = world
        self.buckets = buckets
        self.asked = self.made = False
        self.all = [Stored(f"a/b {number} ü") for number in range(16)]

    async def step(self) -> None:
        random = self.world.random
        free = [stored for stored in self.all if not stored.busy]
        if not self.made:
            await self._make_bucket()
        elif free:
            stored = random.choice(free)
            await (self._delete(stored) if random.random() < 0.3 else self._put(stored))

    async def _make_bucket(self) -> None:
        if self.asked:
            return
        self.asked = True

        def accept(_: Any) -> None:
            self.made = True
            self.buckets.names.append(self.bucket)

        body = {"bucket": self.bucket}
        await self.world.write("POST", "/v1/storage/buckets", body, price=WRITE, accept=accept)

    async def _put(self, stored: Stored) -> None:
        content = f"{self.world.name('object')};".encode() * self.world.random.randrange(1, 40_000)
        stored.busy = True
        try:
            url = await self._presigned(stored, "PUT")
            stored.may_be.add(content)
            try:
                status, _ = await self.world.transfer("PUT", url, content)
            except (aiohttp.ClientError, OSError):
                raise Interrupted from None
            assert status == 200
            stored.may_be = {content}
            self.world.count["put"] += 1
        finally:
            stored.busy = False

    async def _presigned(self, stored: Stored, method: str) -> str:
        answers: list[str] = []
        path = f"{self._path(stored)}/presign"
        body, accept = {"method": method}, lambda data: answers.append(data["url"])
        await self.world.write("POST", path, body, price=WRITE, accept=accept)
        return answers[0]

    def _path(self, stored: Stored) -> str:
        return f"/v1/storage/buckets/{self.bucket}/objects/{quote(stored.key, safe='')}"

    async def _delete(self, stored: Stored) -> None:
        stored.busy = True

        def gone(_: Any = None) -> None:
            stored.busy, stored.may_be = False, {None}
            self.world.count["deleted object"] += 1

        def refuse() -> None:
            assert None in stored.may_be, f"{stored.key} was there"
            gone()

        await self.world.write("DELETE", self._path(stored), None, price=FREE, accept=gone, refuse=refuse)

    async def check(self) -> None:
        if self.made:
            await asyncio.gather(*map(self._check, self.all))
            await self._check_files()

    async def _check(self, stored: Stored) -> None:
        status, body = await self.world.transfer("GET", await self._presigned(stored, "GET"))
        found = body if status == 200 else None
        assert found in stored.may_be, (stored.key, status, len(body))
        assert status in (200, 404)
        stored.may_be = {found}

    async def _check_files(self) -> None:
        """Blobs that were given up are deleted soon after."""
        directory, deadline = self.world.data_dir / "objects", time.monotonic() + PATIENCE
        while True:
            named = {blob for (blob,) in self.world.state("select blob from objects")}
            if {path.name for path in directory.iterdir()} == named:
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        sizes = sorted(len(content) for stored in self.all for content in stored.may_be if content is not None)
        assert sorted(path.stat().st_size for path in directory.iterdir()) == sizes
