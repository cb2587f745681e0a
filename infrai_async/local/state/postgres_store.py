"""Keep the state in Postgres, for several gateways that serve one account.

The state has a database of its own, named after the database in the DSN, so one server can hold several accounts. Only
its owner, the role of the gateways, may connect, because the database contains their root secret.

One gateway writes at a time and holds an advisory lock during its group commit. Every call charges the same account
row, so concurrent transactions would mostly conflict and be repeated. A gateway that stalls while holding the lock is
disconnected by the server (``idle_in_transaction_session_timeout``), which rolls back its transaction and frees the
lock.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import asyncpg
import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import SQLAlchemyError

from infrai_async.local._errors import RequestRefused
from infrai_async.local._files import write_whole
from infrai_async.local.postgres.binaries import PostgresUnavailable
from infrai_async.local.postgres.connections import connected
from infrai_async.local.postgres.ownership import for_owner_alone, quoted
from infrai_async.local.state import tables
from infrai_async.local.state.store import Store

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")
_LOCK: Final = 0x1F4A1
"""The key of the advisory lock that all gateways take; Postgres keeps the locks of each database separate."""
_READERS: Final = 4
_LONGEST: Final = 63
"""The longest identifier in Postgres, in bytes."""
_SETTINGS: Final = {
    "search_path": "public",
    "synchronous_commit": "on",
    "default_transaction_isolation": r"read\ committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "10s",
}
_IMPATIENCE: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class SharedStore(Store):
    """Run jobs against the state in Postgres.

    Args:
        dsn: the address of the server.

    Attributes:
        database: the name of the state's database, once the store is open.

    Raises:
        ValueError: if the driver is not installed.
    """

    def __init__(self, dsn: str) -> None:
        super().__init__(Path())
        self._readers: sa.Engine | None = None
        self._dsn = dsn
        self.database: str = ""
        try:
            importlib.import_module("psycopg")
        except ImportError:
            raise ValueError(
                "postgres_dsn: psycopg is not installed; with a data directory the state is kept on that server too, "
                "which needs it: pip install 'infrai-async[local,postgres]', or '.[local,postgres]' in a checkout"
            ) from None

    async def open(self) -> None:
        """Create the database and the tables if necessary, and start the writer.

        Raises:
            OSError: if the server cannot be reached or refuses.
        """
        where = urlsplit(self._dsn).netloc.rpartition("@")[2]
        try:
            self.database = await _database(self._dsn)
            await super().open()
        except PostgresUnavailable as error:
            raise OSError(str(error)) from None
        except asyncpg.PostgresError as error:
            raise OSError(f"the gateway's state cannot be kept in Postgres at {where}: {error}") from None
        except (SQLAlchemyError, RequestRefused) as error:
            # The text of the error is left out, because a message about a malformed DSN may quote it with its password.
            message = f"the gateway's state cannot be kept in Postgres at {where} ({type(error).__name__})"
            raise OSError(f"{message}: check that psql can connect with the same --postgres-dsn") from None

    def _connect(self) -> sa.Engine:
        engine = sa.create_engine(
            "postgresql+psycopg://", creator=partial(_open, self._dsn, self.database), pool_size=1, max_overflow=0
        )
        event.listen(engine, "begin", _wait_for_turn)
        event.listen(engine, "handle_error", _explain)
        with engine.begin() as connection:
            tables.prepare(connection)
        return engine

    async def _open_reader(self) -> None:
        self._readers = sa.create_engine(
            "postgresql+psycopg://",
            creator=partial(_open, self._dsn, self.database),
            pool_size=_READERS,
            max_overflow=0,
            pool_pre_ping=True,
            isolation_level="REPEATABLE READ",
        )
        event.listen(self._readers, "handle_error", _explain)

    async def _close_reader(self) -> None:
        readers, self._readers = self._readers, None
        if readers is not None:
            await asyncio.to_thread(readers.dispose)

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run ``job``, which changes nothing, and return its result.

        It sees everything that was acknowledged before, by whichever gateway.

        Raises:
            RequestRefused: 503, if the store is closed or the server cannot be reached.
        """
        if self._readers is None:
            raise RequestRefused(503, "VENDOR_UNAVAILABLE", "the gateway's state is closed")
        return await asyncio.to_thread(_read, self._readers, job)


def _read(readers: sa.Engine, job: Callable[[Connection], T]) -> T:
    with readers.begin() as connection:
        return job(connection)


async def _database(dsn: str) -> str:
    """Return the name of the state's database, creating it if necessary."""
    # The lock serializes gateways that start at the same time. Its session ends with the pool, which frees it.
    pool = await connected(dsn)
    try:
        async with pool.acquire() as connection:
            await connection.execute("select pg_advisory_lock($1)", _LOCK)
            return await _make_database(connection)
    finally:
        pool.terminate()


async def _make_database(connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> str:
    here = await connection.fetchval("select current_database()")
    name = f"infrai_state_{here}".encode()[:_LONGEST].decode(errors="ignore")
    owner = "select pg_get_userbyid(datdba) = current_user from pg_database where datname = $1"
    ours = await connection.fetchval(owner, name)
    if ours is None:
        # Locale C sorts bytewise, as SQLite does. A new database lets PUBLIC connect; the connection limit of 0 keeps
        # everyone out until that is revoked.
        await connection.execute(
            f"create database {quoted(name)} template template0 encoding 'UTF8' locale_provider libc locale 'C' "
            "connection limit 0"
        )
    elif not ours:
        raise PostgresUnavailable(f"database {name} belongs to another role: name another database in --postgres-dsn")
    await connection.execute(for_owner_alone(name))
    return name


def _open(dsn: str, database: str) -> psycopg.Connection:
    import psycopg
    from psycopg.conninfo import make_conninfo
    from psycopg.types.numeric import IntLoader

    options = " ".join(f"-c {name}={value}" for name, value in _SETTINGS.items())
    about = {"dbname": database, "application_name": "infrai-async state", "options": options}
    connection = psycopg.connect(make_conninfo(dsn, **about, **_IMPATIENCE))
    # In Postgres a sum of bigints is NUMERIC. The state contains only integers, so it is always read as int.
    connection.adapters.register_loader("numeric", IntLoader)
    return connection


def _wait_for_turn(connection: Connection) -> None:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")


def _explain(context: ExceptionContext) -> RequestRefused | None:
    """Translate database errors that are not the gateway's fault: unstorable values and an unreachable server."""
    import psycopg

    if context.is_pre_ping:
        return None  # the pool opens another connection
    if isinstance(context.original_exception, psycopg.DataError):
        return RequestRefused(
            400,
            "VALIDATION_ERROR",
            "a value cannot be stored: text must not contain NUL, and integers must fit 64 bits",
        )
    if context.is_disconnect or isinstance(context.original_exception, psycopg.OperationalError):
        return RequestRefused(
            503, "VENDOR_UNAVAILABLE", "the gateway's state is unavailable: its Postgres cannot be reached; try again"
        )
    return None


def bind(state: Path, mark: str | None) -> None:
    """Bind a data directory to the shared state with this mark, or with ``None`` to the state inside the directory.

    Raises:
        OSError: if the directory is bound to another state, whose data would otherwise seem to be lost.
    """
    bound = state / "shared"
    before = bound.read_text() if bound.exists() else None
    if mark is None and before is not None:
        raise OSError(f"the state of {state.parent} is in Postgres: give its --postgres-dsn, or another --data-dir")
    if mark is not None and (state / "state.db").exists():
        raise OSError(f"{state.parent} has a state of its own: omit --postgres-dsn, or give another --data-dir")
    if mark is not None and before not in (None, mark):
        raise OSError(
            f"{state.parent} belongs to the state in another Postgres: give its --postgres-dsn, or another --data-dir"
        )
    if mark is not None and before is None:
        write_whole(bound, mark)
