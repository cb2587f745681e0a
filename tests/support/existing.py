"""Servers as somebody else runs them: a Postgres, entered by a role that is no superuser, and an S3 store."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from infrai_async.local.postgres.databases import Postgres

_SERVE = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@asynccontextmanager
async def s3_store() -> AsyncIterator[str]:
    """The address of a store in a process of its own."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", _SERVE, stdin=pipe, stdout=pipe
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def ordinary_role(server: Postgres) -> AsyncIterator[str]:
    """The address of a role that may make databases and roles and is no superuser."""
    assert server._server is not None
    address = server._server.dsn()
    admin = await asyncpg.connect(address)
    await admin.execute("create role keeper login createdb createrole password 'keeper'")
    await admin.execute("create database keeper")
    # The server's own rules let tenants into databases of their own name only.
    rules = server._server.cluster_dir / "hba"
    rules.write_text(rules.read_text() + "host all all 127.0.0.1/32 scram-sha-256\n")
    await admin.fetchval("select pg_reload_conf()")
    await admin.close()
    yield f"postgresql://keeper:keeper@{urlsplit(address).netloc.rpartition('@')[2]}/keeper?sslmode=disable"
