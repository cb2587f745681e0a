"""Databases on a real server: on one of ours by every version at hand, and on an existing one without a superuser."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakKeyDictionary

import asyncpg
import pytest
from support.existing import ordinary_role
from support.homes import owners_of_homes

from infrai_async.local.postgres.binaries import find
from infrai_async.local.postgres.databases import Postgres

PREFIX = f"infrai-test-{os.getpid()}-"
PASSWORD = "s3cret/of:a@tenant"
_names = iter(range(1, 10_000))
_superusers: WeakKeyDictionary[Postgres, str] = WeakKeyDictionary()


def name() -> str:
    return f"ifr_{next(_names):05}"


def directories() -> list[Path]:
    """Of the default, and of the oldest packaged one that will do: the same again where there is none."""
    packaged = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if int(path.parent.name) >= 15]
    return [find().directory, min(packaged, default=find().directory)]


@asynccontextmanager
async def temporary(dsn: str | None = None, binaries: Path | None = None) -> AsyncIterator[Postgres]:
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        postgres = await Postgres.start(directory, dsn=dsn, binaries=binaries)
        try:
            yield postgres
        finally:
            await postgres.aclose(remove=True)
    finally:
        shutil.rmtree(directory)


NEWEST, OLDEST = directories()
# Whose server it is, and which version. By default every test meets either owner and either version, on two opposite
# servers, and every pair of owner and version meets the tests of what differs between them; INFRAI_WHOLE_MATRIX (so
# does nox) runs everything on all four.
EVERY = ["own newest", "existing oldest", "own oldest", "existing newest"]
SOME = EVERY if os.environ.get("INFRAI_WHOLE_MATRIX") else EVERY[:2]
everywhere = pytest.mark.parametrize("postgres", EVERY, indirect=True, scope="module")


@pytest.fixture(scope="module", params=SOME)
async def postgres(request: pytest.FixtureRequest) -> AsyncIterator[Postgres]:
    kind, age = request.param.split()
    async with temporary(binaries=NEWEST if age == "newest" else OLDEST) as own:
        assert own._server is not None
        if kind == "own":
            _superusers[own] = own._server.dsn()
            yield own
        else:
            async with ordinary_role(own) as dsn, temporary(dsn) as existing:
                _superusers[existing] = own._server.dsn()
                yield existing


@asynccontextmanager
async def superuser(postgres: Postgres) -> AsyncIterator[asyncpg.Connection]:
    """The superuser of a server, also of one where the gateway itself is an ordinary role."""
    connection = await asyncpg.connect(_superusers[postgres])
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def client(
    postgres: Postgres, database: str, password: str = PASSWORD, **settings: str
) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres.uri(database, password), timeout=10, server_settings=settings)
    try:
        yield connection
    finally:
        await connection.close()


async def made(postgres: Postgres, script: str = "create table t (x int); insert into t values (1)") -> str:
    database = name()
    await postgres.create(database, PASSWORD)
    async with client(postgres, database) as connection:
        await connection.execute(script)
    return database


async def rows(postgres: Postgres, database: str, query: str = "select x from t order by x") -> list[object]:
    async with client(postgres, database) as connection:
        return [row[0] for row in await connection.fetch(query)]


@pytest.fixture(scope="session", autouse=True)
def _no_home_is_left() -> Iterator[None]:
    yield
    # Others' gateways may run on this machine meanwhile: only ours are counted.
    assert [owner for owner in owners_of_homes() if PREFIX in owner] == []
