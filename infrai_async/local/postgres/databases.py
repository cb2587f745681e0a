"""Databases on a Postgres server, ours or one that exists: create, copy, freeze, drop.

Every database has a role of the same name that owns it and all in it; a frozen one's role cannot log in. A role is
made first and dropped last and carries our mark, so the marked roles are the complete list of what is ours, half-made
or whole. Every step may be repeated: what is done already counts as done, which is all that recovery needs.

Copies are `CREATE DATABASE ... TEMPLATE`. It wants the source to itself, so the source's sessions are ended until it
is through; newcomers wait for its lock and then succeed. Making the source refuse connections instead would give
reconnecting clients errors, and leave a state to repair after a crash.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from weakref import WeakValueDictionary

import asyncpg
from attrs import frozen

from infrai_async.local._files import remove_tree, write_whole
from infrai_async.local._locks import DirectoryInUse, Lock
from infrai_async.local.postgres.binaries import OLDEST, PostgresUnavailable
from infrai_async.local.postgres.ownership import for_owner_alone, hand_over, quoted
from infrai_async.local.postgres.scram import verifier
from infrai_async.local.postgres.server import PostgresServer
from infrai_async.local.postgres.stale_processes import directories

__all__ = ["GONE", "DirectoryInUse", "Postgres", "PostgresUnavailable", "Shared"]

GONE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what a connection says that broke in the middle of something
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)
"""What is raised while the server is away: it was stopped, or has died, or is not up yet."""

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"ifr_[a-z0-9_]{1,59}")

# Tenants may set anything for their database; what a connection states itself goes before that.
_SETTINGS = {
    "search_path": "pg_catalog",
    "default_transaction_read_only": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
}

_MAKERS = 4
_EVICT_EVERY = 0.02
_ATTEMPTS = 3
_ROLE_CONNECTIONS = 50

# Through the log of writes up to here, by copying files above: the first costs no checkpoint, the second no log.
_LARGEST_LOGGED = 256 * 2**20

_EVICT = """
select pg_terminate_backend(pid) from pg_stat_activity
where datname = $1 and backend_type = 'client backend' and pg_has_role(usesysid, 'usage')
"""
_CUT_OFF = """
select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = $1 and usename = current_user
"""
_ABOUT_SERVER = """
select current_setting('server_version_num')::int / 10000 as major, rolsuper, rolcreatedb and rolcreaterole as able,
       rolname from pg_roles where rolname = current_user
"""
_MARKED = "select rolname from pg_roles where shobj_description(oid, 'pg_authid') = $1"
_HOLDERS = """
select distinct d.datname, d.datallowconn
from pg_shdepend s join pg_database d on d.oid = s.dbid join pg_roles own on own.rolname = d.datname
join pg_roles held on held.oid = s.refobjid and s.refclassid = 'pg_authid'::regclass and held.rolname = $1
"""


@frozen
class Shared:
    """What makes a gateway one of several that share their databases.

    Attributes:
        mark: what tells their roles from those of others on the same server.
        database: the one to work from: no tenant can connect there, and so hold up a gateway by its locks.
        gateway: what tells this one's sessions from those of the others.
    """

    mark: str
    database: str
    gateway: str


class Postgres:
    """A server, and what of it is ours."""

    def __init__(
        self,
        dsn: str,
        mark: str,
        pool: asyncpg.Pool[asyncpg.Record],
        lock: Lock,
        server: PostgresServer | None,
        shared: Shared | None,
    ) -> None:
        self._dsn = dsn
        self._mark = mark
        self._pool = pool
        self._lock = lock
        self._server = server
        self._shared = shared
        self._superuser = False
        self._making = asyncio.Semaphore(_MAKERS)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.version: str = ""

    @classmethod
    async def start(
        cls,
        data_dir: Path,
        *,
        dsn: str | None = None,
        binaries: Path | None = None,
        temporary: bool = False,
        shared: Shared | None = None,
    ) -> Postgres:
        """Have a server: the one `dsn` names, or one of our own, found, made and started.

        Args:
            data_dir: The gateway's data directory; the same one gives the same databases again.
            dsn: `postgresql://...` of a server of version 15 or newer, for a role with CREATEDB and CREATEROLE.
            binaries: The directory with `postgres` and `initdb`; default: extra `local`'s, else an installed one.
            temporary: Whether the data directory may be deleted, with all in it, once this process is gone.
            shared: Of what gateways this is one; default: the databases are those of the data directory alone.

        Raises:
            PostgresUnavailable: if there is none, saying what mends it.
            DirectoryInUse: if another gateway runs on the same data directory.
        """
        directory = (data_dir / "postgres").absolute()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as undo:
            lock = Lock.on(directory)
            undo.callback(lock.release)
            server = None
            if dsn is None:
                server = await PostgresServer.start(directory, binaries, temporary=temporary)
                undo.push_async_callback(server.stop)
                dsn = server.dsn()
            pool = await connected(dsn, shared)
            undo.callback(pool.terminate)
            mark = shared.mark if shared else _mark(directory)
            self = cls(dsn, mark, pool, lock, server, shared)
            await self._prepare()
            await self._remove_strays()
            undo.pop_all()
        return self

    async def died(self) -> None:
        """Wait until our server has ended; for ever where it is not ours."""
        await (self._server.died() if self._server else asyncio.Event().wait())

    async def revive(self) -> None:
        """Start our server again after it died.

        Raises:
            PostgresUnavailable: if it does not start.
        """
        if self._server is not None:
            self._pool.terminate()
            try:
                await self._server.restart()
                self._dsn = self._server.dsn()
                self._pool = await connected(self._dsn)
                await self._remove_strays()
            except BaseException:
                await self._server.halt()  # half-alive it would never be seen to have died
                raise

    async def _prepare(self) -> None:
        (about,) = await self._pool.fetch(_ABOUT_SERVER)
        if about["major"] < OLDEST:
            raise PostgresUnavailable(f"that is Postgres {about['major']}: give --postgres-dsn of {OLDEST} or newer")
        if not (about["rolsuper"] or about["able"]):
            raise PostgresUnavailable(f"first, there: ALTER ROLE {quoted(about['rolname'])} CREATEDB CREATEROLE")
        self.version = str(about["major"])
        self._superuser = about["rolsuper"]
        if self._server is not None:
            await self._pool.execute("revoke all on database postgres, template1 from public")

    async def _remove_strays(self) -> None:
        """Remove what a crash left of databases that never came to be; before anything makes one again."""
        if self._server is None:
            return
        there = directories(self._server.data)
        known = {row["oid"] for row in await self._pool.fetch("select oid from pg_database")}
        strays = [path for oid, path in sorted(there.items()) if oid not in known]
        if strays:
            numbers = ", ".join(path.name for path in strays)
            _logger.warning("removing %d directories that belong to no database: %s", len(strays), numbers)
            await asyncio.gather(*(asyncio.to_thread(remove_tree, path) for path in strays))

    async def create(self, name: str, password: str) -> None:
        """Make an empty database with a role of the same name that owns it."""
        async with self._exclusively(name):
            await self._make_role(name, verifier(password))
            await self._make_database(name, "template0 encoding 'UTF8'")

    async def copy(self, source: str, name: str, password: str) -> None:
        """Make a database that is a copy of another, live or frozen, and belongs to a role of its own.

        Sessions of the source are ended meanwhile; those that come anew wait for some tenths of a second.

        Raises:
            LookupError: if there is no such source.
        """
        async with self._exclusively(source, name):
            await self._copy(source, name, verifier(password))

    async def freeze(self, source: str, name: str) -> None:
        """Make a copy of a database that nobody can connect to.

        Raises:
            LookupError: if there is no such source.
        """
        async with self._exclusively(source, name):
            if await self._is_open(name) is False:
                return
            await self._copy(source, name, None)
            await self._pool.execute(f"alter database {quoted(name)} allow_connections false")

    async def close(self, names: Iterable[str]) -> None:
        """Let nobody into these databases any more, and disconnect those who are in; what is gone already is closed."""
        for name in names:
            with suppress(asyncpg.UndefinedObjectError):
                await self._to_role(f"alter role {quoted(name)} nologin")
            await self._evict(name)

    async def drop(self, name: str) -> None:
        """Delete a database and its role; those connected to it are disconnected."""
        async with self._exclusively(name):
            if await self._pool.fetchval("select datistemplate from pg_database where datname = $1", name):
                await self._pool.execute(f"alter database {quoted(name)} is_template false")
            await self._pool.execute(f"drop database if exists {quoted(name)} with (force)")
            try:
                await self._to_role(f"drop role if exists {quoted(name)}")
            except asyncpg.DependentObjectsStillExistError:
                await self._release(name)
                await self._to_role(f"drop role if exists {quoted(name)}")

    async def cut_off(self, gateway: str) -> None:
        """End what another gateway, taken for dead, may still have under way here, and with it its locks."""
        await self._pool.execute(_CUT_OFF, _sessions_of(gateway))

    async def databases(self) -> frozenset[str]:
        """Return the names of the databases that this data directory has made, half-made ones too."""
        return frozenset(row[0] for row in await self._pool.fetch(_MARKED, self._mark))

    def uri(self, name: str, password: str) -> str:
        """Return the address under which a client opens a database.

        The password is the one that the role was given. A tenant owns its role and may change it; then this address
        does not open, and is not mended: that would let whoever only reads an address undo what its owner did.
        """
        dsn = urlsplit(self._dsn)
        address = dsn.netloc.rpartition("@")[2]
        query = "" if self._server else _without_names(dsn.query)
        return urlunsplit((dsn.scheme, f"{name}:{quote(password, safe='')}@{address}", f"/{name}", query, ""))

    async def aclose(self, *, remove: bool = False) -> None:
        """Stop our server, or let go of the one that exists.

        Args:
            remove: Also delete our cluster for good, also where it lies outside the data directory (as it does for
                root); for data directories that are temporary. Default: keep it for the next start.
        """
        self._pool.terminate()
        try:
            if self._server is not None:
                await (self._server.remove() if remove else self._server.stop())
        finally:
            self._lock.release()

    @asynccontextmanager
    async def _exclusively(self, *names: str) -> AsyncIterator[None]:
        # Ownership moves back and forth in one row per source: two copies of one source at a time would collide.
        # The place among the makers is taken last, so that those who wait for a source hold up nobody else.
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"no name for a database of ours: {name!r}")
        async with AsyncExitStack() as held:
            for name in sorted(set(names)):
                await held.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            await held.enter_async_context(self._making)
            if self._shared:
                await held.enter_async_context(self._alone_at_server(*sorted(set(names))))
            yield

    @asynccontextmanager
    async def _alone_at_server(self, *names: str) -> AsyncIterator[None]:
        """Keep the other gateways from these databases; the server ends that when this one dies."""
        async with self._pool.acquire() as connection:
            for name in names:
                await connection.execute("select pg_advisory_lock(hashtextextended($1, 0))", name)
            yield  # the pool unlocks what it is given back

    async def _make_role(self, name: str, secret: str | None) -> None:
        login = f"login password '{secret}'" if secret else "nologin"
        if await self._pool.fetchval("select 1 from pg_roles where rolname = $1", name) is not None:
            await self._to_role(f"alter role {quoted(name)} {login}")
            return
        statements = [
            f"create role {quoted(name)} {login} connection limit {_ROLE_CONNECTIONS}",
            f"comment on role {quoted(name)} is '{self._mark}'",
        ]
        if not self._superuser:
            # From 16 on a creator administers a role but may not act as it unless it says so.
            acting = " with set true, inherit true" if int(self.version) >= 16 else ""
            statements.append(f"grant {quoted(name)} to current_user{acting}")
        await self._pool.execute("; ".join(statements))

    async def _to_role(self, statement: str) -> None:
        # Who deletes what is still being made meets its maker at the role, and Postgres fails whoever comes second.
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._pool.execute(statement)
                break
            except asyncpg.InternalServerError:
                if not left:
                    raise

    async def _make_database(self, name: str, template: str) -> None:
        # Until PUBLIC has lost its right to connect, the limit keeps everybody out.
        if await self._is_open(name) is None:
            # A gateway that was taken for dead may be at it still; then this waits for the end of that.
            with suppress(asyncpg.UniqueViolationError, asyncpg.DuplicateDatabaseError):
                await self._pool.execute(
                    f"create database {quoted(name)} template {template} owner {quoted(name)} connection limit 0"
                )
        await self._pool.execute(for_owner_alone(name))

    async def _copy(self, source: str, name: str, secret: str | None) -> None:
        if await self._is_open(source) is None:
            raise LookupError(f"there is no database {source}")
        await self._make_role(name, secret)
        await self._make_database_from(source, name)
        await self._hand_over(source, name)

    async def _make_database_from(self, source: str, name: str) -> None:
        size = await self._pool.fetchval("select pg_database_size($1::name)", source)
        template = f"{quoted(source)} strategy {'wal_log' if size <= _LARGEST_LOGGED else 'file_copy'}"
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._alone_with(source, partial(self._make_database, name, template))
                break
            except asyncpg.ObjectInUseError:
                if not left:
                    raise

    async def _alone_with(self, source: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        await self._evict(source)
        task = asyncio.create_task(work())
        try:
            while not (await asyncio.wait({task}, timeout=_EVICT_EVERY))[0]:
                await self._evict(source)
            await task
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _evict(self, name: str) -> None:
        await self._pool.execute(_EVICT, name)

    async def _hand_over(self, old: str, name: str) -> None:
        inside = await asyncpg.connect(self._dsn, database=name, server_settings=_settings(self._shared))
        try:
            await hand_over(inside, old, name)
        finally:
            await inside.close()

    async def _release(self, role: str) -> None:
        # What keeps a role alive after its database: a copy that was begun and not finished, or what tenants granted.
        for row in await self._pool.fetch(_HOLDERS, role):
            name, is_open = row
            if not is_open:
                await self._pool.execute(f"alter database {quoted(name)} allow_connections true")
            try:
                await self._hand_over(role, name)
            finally:
                await self._pool.execute(f"alter database {quoted(name)} allow_connections {is_open}")

    async def _is_open(self, name: str) -> bool | None:
        """Return whether a database takes connections, None if there is none."""
        found: bool | None = await self._pool.fetchval("select datallowconn from pg_database where datname = $1", name)
        return found


async def connected(dsn: str, shared: Shared | None = None) -> asyncpg.Pool[asyncpg.Record]:
    """Return connections to a server.

    Raises:
        PostgresUnavailable: if there are none to be had.
    """
    where = urlsplit(dsn).netloc.rpartition("@")[2]
    try:
        return await asyncpg.create_pool(
            dsn,
            database=shared.database if shared else None,
            min_size=1,
            max_size=2 * _MAKERS + 2,
            server_settings=_settings(shared),
        )
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # Without its cause: what is wrong with an address may quote it, and a password is part of it.
        raise PostgresUnavailable(
            f"no connection to Postgres at {where} ({type(error).__name__}): "
            f"check --postgres-dsn, or leave it out to have a server started"
        ) from None


def _settings(shared: Shared | None) -> dict[str, str]:
    return _SETTINGS | {"application_name": _sessions_of(shared.gateway) if shared else "infrai-async"}


def _sessions_of(gateway: str) -> str:
    return f"infrai-async {gateway}"


def _mark(directory: Path) -> str:
    """Return what tells the roles of this data directory from those of others on the same server."""
    file = directory / "identity"
    if not file.exists():
        write_whole(file, f"infrai-async {secrets.token_hex(16)}")
    return file.read_text()


def _without_names(query: str) -> str:
    named = ("user", "password", "passfile", "database", "dbname")
    return urlencode([(key, value) for key, value in parse_qsl(query) if key not in named])
