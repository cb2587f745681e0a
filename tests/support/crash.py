"""A gateway that is killed under load, and a ledger of what it answered.

A kind of load (`support.crash_kinds`) writes through ``World.write`` and says what each answer means. What got none is
asked again under its key once the gateway is back; from then on everything is known exactly, and every kind checks it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import asyncpg
from yarl import URL

from infrai_async.local._files import read_number
from infrai_async.local.postgres.data_dirs import cluster_dir_of
from infrai_async.local.postgres.stale_processes import _servers
from support.patience import PATIENCE

CREDIT = Decimal(2)


class Interrupted(Exception):
    """A write got no answer, or none that is final."""


class Kind(Protocol):
    """A kind of load."""

    workers: int
    pause: float
    """Seconds between two steps of a worker, on average."""

    def __init__(self, world: World) -> None: ...

    async def step(self) -> None:
        """Write something; ``Interrupted`` ends the worker."""

    async def check(self) -> None:
        """Hold what is there against what was answered; nothing is under way meanwhile."""


@dataclass(eq=False)
class Write:
    """A write under one key, from when it is first sent until it is answered for good."""

    method: str
    path: str
    body: Any
    key: str
    price: Decimal
    accept: Callable[[Any], None]
    refuse: Callable[[], None]
    data: Any = None


class World:
    """What was asked of one data directory over all lives of its gateway, and what came of it."""

    def __init__(self, data_dir: Path, session: aiohttp.ClientSession, seed: int) -> None:
        self.data_dir = data_dir
        self.random = random.Random(seed)
        self.gateway = GatewayProcess(data_dir)
        self.spent = Decimal(0)
        self.acknowledged: list[Write] = []
        self.unknown: list[Write] = []
        self.count: Counter[str] = Counter()
        self._session = session
        self._numbers = iter(range(1, 10**9))

    def name(self, prefix: str) -> str:
        return f"{prefix}{next(self._numbers)}"

    @property
    def makes_a_database(self) -> bool:
        """Whether a database is being made, as far as is known from here."""
        return any(write.method == "POST" and write.path.startswith("/v1/db/") for write in self.unknown)

    # --- asking ------------------------------------------------------------------------------------------------

    async def write(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        price: str,
        accept: Callable[[Any], None],
        refuse: Callable[[], None] = lambda: None,
    ) -> None:
        write = Write(method, path, body, self.name("key"), Decimal(price), accept, refuse)
        self.unknown.append(write)
        if not await self._send(write):
            raise Interrupted

    async def _send(self, write: Write) -> bool:
        """Send a write and book what was answered; whether that was final."""
        try:
            status, document = await self.ask(write.method, write.path, write.body, key=write.key)
        except (aiohttp.ClientError, OSError):
            return False
        if status >= 500:
            assert document["error"]["retryable"], document
            assert document["error"]["code"] == "VENDOR_UNAVAILABLE", document
            return False
        self.unknown.remove(write)
        if status == 200:
            assert Decimal(repr(document["metadata"]["cost_usd"])) in (write.price, 0), document
            self.spent += write.price
            write.data = document["data"]
            self.acknowledged.append(write)
            write.accept(write.data)
        else:
            assert status in (404, 409), document
            assert document["error"]["code"] != "IDEMPOTENCY_KEY_REUSED", document
            self.count["refused"] += 1
            write.refuse()
        return True

    async def read(self, path: str) -> Any:
        """Ask for something that is there, and book what it costs."""
        status, document = await self.ask("GET", path)
        assert status == 200, document
        self.spent += Decimal(repr(document["metadata"]["cost_usd"]))
        return document["data"]

    async def ask(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.gateway.api_key}"} | ({"Idempotency-Key": key} if key else {})
        url = URL(self.gateway.base_url + path, encoded=True)
        async with self._session.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def transfer(self, method: str, url: str, content: bytes | None = None) -> tuple[int, bytes]:
        """Use a presigned address, which takes no key."""
        data = None if content is None else BytesIO(content)
        async with self._session.request(method, URL(url, encoded=True), data=data) as answer:
            return answer.status, await answer.read()

    # --- load, and what became of it ---------------------------------------------------------------------------

    async def load(self, kinds: Iterable[Kind], until: asyncio.Event) -> None:
        """Write, everything at once, until the event or until nothing answers any more."""

        async def work(kind: Kind) -> None:
            while not until.is_set():
                try:
                    await kind.step()
                except Interrupted:
                    return
                await asyncio.sleep(self.random.uniform(0, 2 * kind.pause))

        await asyncio.gather(*(work(kind) for kind in kinds for _ in range(kind.workers)))

    async def settle(self) -> None:
        """Ask again what is unknown, under its key, until it is known; a sample of what is known has to stay so."""
        self.count["asked again"] += len(self.unknown)
        deadline = time.monotonic() + PATIENCE
        while self.unknown:
            assert time.monotonic() < deadline, f"not answered: {self.unknown}"
            answered = await asyncio.gather(*(self._send(write) for write in tuple(self.unknown)))
            await asyncio.sleep(0 if all(answered) else 0.05)
        sample = self.random.sample(self.acknowledged, min(8, len(self.acknowledged)))
        await asyncio.gather(*map(self._check_replay, sample))

    async def _check_replay(self, write: Write) -> None:
        status, document = await self.ask(write.method, write.path, write.body, key=write.key)
        assert status == 200, document
        assert _lasting(document["data"]) == _lasting(write.data)
        assert document["metadata"]["cost_usd"] == 0, document

    async def check_wallet(self) -> None:
        _, document = await self.ask("GET", "/v1/account/balance")
        assert Decimal(repr(document["data"]["balance_usd"])) == CREDIT - self.spent

    # --- behind the gateway ------------------------------------------------------------------------------------

    def state(self, query: str) -> list[Any]:
        """Ask the gateway's state itself."""
        where = f"file:{self.data_dir / 'state' / 'state.db'}?mode=ro"
        with closing(sqlite3.connect(where, uri=True)) as database:
            return database.execute(query).fetchall()

    async def check_databases(self, expected: int) -> None:
        """Databases, roles and directories of Postgres are those that the state knows; drops take their time."""
        known = {name for (name,) in self.state("select name from databases where not doomed")}
        assert len(known) == expected
        wanted = {"databases": known, "roles": known, "stray directories": set(), "still marked": set()}
        deadline = time.monotonic() + PATIENCE
        while (found := await self._databases()) != wanted:
            assert time.monotonic() < deadline, f"{wanted=}, {found=}"
            await asyncio.sleep(0.05)

    async def _databases(self) -> dict[str, set[str]]:
        marked = {name for (name,) in self.state("select name from databases where doomed")}
        return await self.gateway.holds() | {"still marked": marked}


# asyncpg gives a connection back in a task of its own. Nobody asks for its outcome when whoever waited for it was
# cancelled at that moment, as a gateway's requests are when its Postgres is killed.
_GIVEN_BACK = re.compile(
    r"Task exception was never retrieved\nfuture: <Task [^\n]*coro=<PoolConnectionHolder\.release\(\).*?"
    r"^asyncpg\.exceptions\.ConnectionDoesNotExistError: [^\n]*\n",
    re.DOTALL | re.MULTILINE,
)


@dataclass
class GatewayProcess:
    """``infrai-async local`` on one data directory, in a process of its own that may be killed and started again."""

    data_dir: Path
    base_url: str = ""
    api_key: str = ""
    starts: list[float] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None

    @property
    def log(self) -> Path:
        return self.data_dir.with_name("gateway.log")

    async def spawn(self) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "infrai_async.cli", "local", "--data-dir", str(self.data_dir))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=log)
        return self._process

    async def start(self) -> None:
        """Start it and wait until it answers, then until it has its databases."""
        begun = time.monotonic()
        process = await self.spawn()
        assert process.stdout is not None
        ways_in: Mapping[str, str] = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE))
        self.base_url, self.api_key = ways_in["base_url"], ways_in["api_key"]
        await self._wait_for_databases()
        self.starts.append(time.monotonic() - begun)

    async def _wait_for_databases(self) -> None:
        headers = {"Authorization": f"Bearer {self.api_key}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"{self.base_url}/v1/db/project/get/none") as answer,
        ):
            assert answer.status == 404, await answer.text()

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def stop(self) -> None:
        """End it as its user would; it may have been killed already."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await asyncio.wait_for(self._process.wait(), PATIENCE)

    def check_log(self) -> None:
        """Nothing went wrong in a way that was not foreseen; asyncpg's pool tells so of a server that was killed."""
        said = _GIVEN_BACK.sub("", self.log.read_text())
        assert said.count("Traceback") == said.count("Failed to restore the pool connection floor")

    # --- its Postgres ------------------------------------------------------------------------------------------

    @property
    def _home(self) -> Path:
        return cluster_dir_of(self.data_dir / "postgres")

    def kill_servers(self) -> None:
        """Kill everything of its Postgres."""
        for pid in _servers(self._home / "data", self._postmaster() or 0):
            _kill(pid)

    def kill_postmaster(self) -> None:
        """Kill the server's first process; the sessions' own find out in their time."""
        postmaster = self._postmaster()
        assert postmaster is not None
        _kill(postmaster)

    def _postmaster(self) -> int | None:
        return read_number(self._home / "data" / "postmaster.pid")

    async def holds(self) -> dict[str, set[str]]:
        """What its Postgres holds of tenants."""
        home = self._home
        address = f"127.0.0.1:{(home / 'port').read_text()}/postgres?sslmode=disable"
        connection = await asyncpg.connect(f"postgresql://postgres:{(home / 'password').read_text()}@{address}")
        try:
            oids = {str(row["oid"]) for row in await connection.fetch("select oid from pg_database")}
            return {
                "databases": await _names(connection, "select datname from pg_database where datname ~ '^ifr_'"),
                "roles": await _names(connection, "select rolname from pg_roles where rolname ~ '^ifr_'"),
                "stray directories": {path.name for path in (home / "data" / "base").glob("[0-9]*")} - oids,
            }
        finally:
            await connection.close()


async def _names(connection: asyncpg.Connection, query: str) -> set[str]:
    return {row[0] for row in await connection.fetch(query)}


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _lasting(data: Any) -> Any:
    """What a replay repeats exactly; a presigned URL is signed anew, for the same object (D4)."""
    if not isinstance(data, dict) or "url" not in data:
        return data
    return data | {"url": data["url"].partition("?")[0], "expires_at": None}
