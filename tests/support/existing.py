"""A Postgres server as somebody else runs it: one of ours, entered by a role that is no superuser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import asyncpg

from infrai_async.local._postgres import Postgres


@asynccontextmanager
async def ordinary_role(server: Postgres) -> AsyncIterator[str]:
    """The address of a role that may make databases and roles and is no superuser."""
    assert server._cluster is not None
    address = server._cluster.dsn()
    admin = await asyncpg.connect(address)
    await admin.execute("create role keeper login createdb createrole password 'keeper'")
    await admin.execute("create database keeper")
    # The server's own rules let tenants into databases of their own name only.
    rules = server._cluster.home / "hba"
    rules.write_text(rules.read_text() + "host all all 127.0.0.1/32 scram-sha-256\n")
    await admin.fetchval("select pg_reload_conf()")
    await admin.close()
    yield f"postgresql://keeper:keeper@{urlsplit(address).netloc.rpartition('@')[2]}/keeper?sslmode=disable"
