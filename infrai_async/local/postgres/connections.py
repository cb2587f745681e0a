"""Connect to a Postgres server in the gateway's name, whatever its tenants have set for their databases."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg
from attrs import frozen

from infrai_async.local.postgres.binaries import PostgresUnavailable

MAKERS = 4
"""The number of databases that a gateway makes at the same time."""
GONE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # raised by a connection that broke in the middle of an exchange
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""The exceptions that mean the server cannot be reached: it was stopped, has crashed, or is not ready yet."""

# Tenants may set defaults for their database or role. Settings sent by the connection itself take precedence.
_SETTINGS = {
    "search_path": "pg_catalog",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "local_preload_libraries": "",
    "role": "none",
}


@frozen
class Shared:
    """How one of several gateways that share their databases identifies itself.

    Attributes:
        mark: distinguishes the roles of these gateways from other roles on the same server.
        database: the database to connect to. Tenants cannot connect to it, so their locks cannot block a gateway.
        gateway: distinguishes this gateway's sessions from those of the others.
    """

    mark: str
    database: str
    gateway: str


async def connected(dsn: str, shared: Shared | None = None) -> asyncpg.Pool[asyncpg.Record]:
    """Open a connection pool to a server.

    Raises:
        PostgresUnavailable: if the server cannot be reached or refuses the login.
    """
    where = urlsplit(dsn).netloc.rpartition("@")[2]
    try:
        return await asyncpg.create_pool(
            dsn,
            database=shared.database if shared else None,
            min_size=1,
            max_size=2 * MAKERS + 2,
            server_settings=_settings(shared),
        )
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The cause is suppressed, because a message about a malformed DSN may quote it with its password.
        raise PostgresUnavailable(
            f"no connection to Postgres at {where} ({type(error).__name__}): "
            f"check --postgres-dsn, or omit it to have a server started"
        ) from None


async def connection_to(
    dsn: str, database: str, shared: Shared | None, version: int
) -> asyncpg.Connection[asyncpg.Record]:
    """Connect to a database of a tenant."""
    longest = {"transaction_timeout": "0"} if version >= 17 else {}
    return await asyncpg.connect(dsn, database=database, server_settings=_settings(shared) | longest)


def _settings(shared: Shared | None) -> dict[str, str]:
    return _SETTINGS | {"application_name": sessions_of(shared.gateway) if shared else "infrai-async"}


def sessions_of(gateway: str) -> str:
    """Return the `application_name` of a gateway's sessions."""
    return f"infrai-async {gateway}"
