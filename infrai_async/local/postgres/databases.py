"""Create, copy, freeze and drop databases on a Postgres server, either the gateway's own or an existing one.

Each database is owned by a role of the same name; the role of a frozen database cannot log in. The role is created
first and dropped last, and its comment carries the gateway's mark. The marked roles are therefore a complete list of
the gateway's databases, including those that a crash left half-made. Every step is idempotent, so recovery consists of
running the steps again.

A copy is a `CREATE DATABASE ... TEMPLATE`, which fails while other sessions use the template database. The source's
sessions are terminated until it succeeds; new ones wait for its lock and then connect. Disallowing connections to the
source instead would show errors to reconnecting clients, and a crash would leave the source closed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit
from weakref import WeakValueDictionary

import asyncpg

from infrai_async.local._files import remove_tree, write_whole
from infrai_async.local._locks import DirectoryInUse, Lock
from infrai_async.local.postgres.binaries import OLDEST, PostgresUnavailable
from infrai_async.local.postgres.connections import GONE, MAKERS, Shared, connected, connection_to, sessions_of
from infrai_async.local.postgres.owner_settings import carry_over
from infrai_async.local.postgres.ownership import for_owner_alone, hand_over, quoted
from infrai_async.local.postgres.scram import verifier
from infrai_async.local.postgres.server import LOCAL, PostgresServer, lacks_space
from infrai_async.local.postgres.stale_processes import directories

__all__ = ["GONE", "DirectoryInUse", "Postgres", "PostgresUnavailable", "Shared"]

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"ifr_[a-z0-9_]{1,59}")

_EVICT_EVERY = 0.02
_ATTEMPTS = 3
_ROLE_CONNECTIONS = 50

# Up to this size a copy goes through the WAL, which needs no checkpoint; larger ones copy files and write no WAL. Which
# way is faster changes between 16 and 30 MB, with dirty buffers too (``python -m benchmarks.branches``).
_LARGEST_LOGGED = 24 * 2**20

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


class Postgres:
    """A Postgres server, and the gateway's databases on it."""

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
        self._making = asyncio.Semaphore(MAKERS)
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
        host: str = LOCAL,
        hurry: threading.Event | None = None,
    ) -> Postgres:
        """Connect to the server that `dsn` names, or start one, creating its cluster if necessary.

        Args:
            data_dir: The gateway's data directory; the same directory has the same databases again.
            dsn: `postgresql://...` of a server of version 15 or newer, for a role with CREATEDB and CREATEROLE.
            binaries: The directory with `postgres` and `initdb`. Default: those of the extra `local`, else installed
                ones.
            temporary: Whether the data directory may be deleted once this process is gone.
            shared: How this gateway identifies itself, if it shares its databases with others. Default: the databases
                belong to this data directory alone.
            host: The address to listen on, besides 127.0.0.1.
            hurry: When it is set, nothing is waited for that the next start can make up for.

        Raises:
            PostgresNotYet: if the gateway's own server did not start, or died at once.
            PostgresUnavailable: if no server can be used; the message says how to fix that.
            DirectoryInUse: if another gateway uses the same data directory.
        """
        directory = (data_dir / "postgres").absolute()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with AsyncExitStack() as undo:
            lock = Lock.on(directory)
            undo.callback(lock.release)
            server = None
            if dsn is None:
                server = await PostgresServer.start(directory, binaries, temporary=temporary, host=host, hurry=hurry)
                undo.push_async_callback(server.stop)
                dsn = server.dsn()
            with _of_own(server):
                pool = await connected(dsn, shared)
                undo.callback(pool.terminate)
                mark = shared.mark if shared else _mark(directory)
                self = cls(dsn, mark, pool, lock, server, shared)
                await self._prepare()
                await self._remove_strays()
            undo.pop_all()
        return self

    def hurry(self) -> None:
        """Make a stop of the gateway's own server end at once, without waiting for its checkpoint; from any thread."""
        if self._server is not None:
            self._server.hurry.set()

    async def died(self) -> None:
        """Wait until the gateway's own server has exited; with an existing server, wait forever."""
        await (self._server.died() if self._server else asyncio.Event().wait())

    async def revive(self) -> None:
        """Restart the gateway's own server after it has died.

        Raises:
            PostgresNotYet: if it does not start.
        """
        if self._server is not None:
            self._pool.terminate()
            try:
                await self._server.restart()
                self._dsn = self._server.dsn()
                with _of_own(self._server):
                    self._pool = await connected(self._dsn)
                    await self._remove_strays()
            except BaseException:
                # A server left running without a pool would never be reported as dead, and so never be restarted.
                await self._server.halt()
                raise

    def why_it_died(self) -> PostgresUnavailable:
        """Return the reason why the gateway's own server has died."""
        return self._server.failure("Postgres has died") if self._server else PostgresUnavailable("Postgres is gone")

    async def _prepare(self) -> None:
        (about,) = await self._pool.fetch(_ABOUT_SERVER)
        if about["major"] < OLDEST:
            raise PostgresUnavailable(
                f"the server of --postgres-dsn is Postgres {about['major']}: use version {OLDEST} or newer"
            )
        if not (about["rolsuper"] or about["able"]):
            raise PostgresUnavailable(
                "the role of --postgres-dsn may not create databases and roles: "
                f"run ALTER ROLE {quoted(about['rolname'])} CREATEDB CREATEROLE on that server"
            )
        self.version = str(about["major"])
        self._superuser = about["rolsuper"]
        if self._server is not None:
            await self._pool.execute("revoke all on database postgres, template1 from public")

    async def _remove_strays(self) -> None:
        """Remove the directories that a crash during CREATE DATABASE left behind.

        It runs before any database is created, since the directory of a database under creation has no row in
        `pg_database` either.
        """
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
        """Create an empty database and the role of the same name that owns it."""
        async with self._exclusively(name):
            await self._make_role(name, verifier(password))
            await self._make_database(name, "template0 encoding 'UTF8'")

    async def copy(self, source: str, name: str, password: str) -> None:
        """Copy a live or frozen database to a new one, owned by a role of its own.

        Existing sessions of the source are terminated; new ones wait for some tenths of a second.

        Raises:
            LookupError: if the source does not exist.
        """
        async with self._exclusively(source, name):
            await self._copy(source, name, verifier(password))

    async def freeze(self, source: str, name: str) -> None:
        """Copy a database to a new one that accepts no connections.

        Raises:
            LookupError: if the source does not exist.
        """
        async with self._exclusively(source, name):
            # Connections are disallowed as the last step, so a database in this state is a complete copy.
            if await self._is_open(name) is False:
                return
            await self._copy(source, name, None)
            await self._pool.execute(f"alter database {quoted(name)} allow_connections false")

    async def close(self, names: Iterable[str]) -> None:
        """Refuse further connections to these databases and terminate their sessions; missing ones are skipped."""
        for name in names:
            # The role is barred before its sessions are terminated, or a client could reconnect in between.
            with suppress(asyncpg.UndefinedObjectError):
                await self._to_role(f"alter role {quoted(name)} nologin")
            await self._evict(name)

    async def drop(self, name: str) -> None:
        """Drop a database and its role, terminating its sessions."""
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
        """Terminate the sessions of another gateway that is presumed dead, and thereby release its locks."""
        await self._pool.execute(_CUT_OFF, sessions_of(gateway))

    async def databases(self) -> frozenset[str]:
        """Return the names of the gateway's databases, including half-made ones."""
        return frozenset(row[0] for row in await self._pool.fetch(_MARKED, self._mark))

    def uri(self, name: str, password: str, host: str = LOCAL) -> str:
        """Return the connection URI of a database, in which the gateway's own server has the given host.

        It contains the role's initial password. A tenant owns the role and may change the password; the URI then stops
        working, on purpose: restoring the password would let any reader of the URI undo the owner's change.
        """
        dsn = urlsplit(self._dsn)
        address = f"{host}:{dsn.port}" if self._server else dsn.netloc.rpartition("@")[2]
        query = "" if self._server else _without_names(dsn.query)
        return urlunsplit((dsn.scheme, f"{name}:{quote(password, safe='')}@{address}", f"/{name}", query, ""))

    async def aclose(self, *, remove: bool = False) -> None:
        """Stop the gateway's own server, or disconnect from an existing one.

        Args:
            remove: Whether to delete the gateway's own cluster too, even if it is outside the data directory (as it
                is for root). Meant for temporary data directories. Default: keep it for the next start.
        """
        self._pool.terminate()
        try:
            if self._server is not None:
                await (self._server.remove() if remove else self._server.stop())
        finally:
            self._lock.release()

    @asynccontextmanager
    async def _exclusively(self, *names: str) -> AsyncIterator[None]:
        # A copy passes the source's row in pg_database to another owner and back (see `ownership.hand_over`), so two
        # concurrent copies of one source would collide. The locks are taken in sorted order, which rules out a
        # deadlock. The semaphore comes after them, so that waiting for a busy source does not occupy one of its slots.
        for name in names:
            if not _NAME.fullmatch(name):
                raise ValueError(f"not the name of a database of the gateway: {name!r}")
        async with AsyncExitStack() as held:
            for name in sorted(set(names)):
                await held.enter_async_context(self._locks.setdefault(name, asyncio.Lock()))
            await held.enter_async_context(self._making)
            if self._shared:
                await held.enter_async_context(self._alone_at_server(*sorted(set(names))))
            yield

    @asynccontextmanager
    async def _alone_at_server(self, *names: str) -> AsyncIterator[None]:
        """Lock these databases against other gateways; if this gateway dies, its session ends and frees the locks."""
        async with self._pool.acquire() as connection:
            for name in names:
                await connection.execute("select pg_advisory_lock(hashtextextended($1, 0))", name)
            yield  # the pool releases advisory locks when it resets a returned connection

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
            # Since Postgres 16 the creator of a role may administer it, but needs a grant to act as it.
            acting = " with set true, inherit true" if int(self.version) >= 16 else ""
            statements.append(f"grant {quoted(name)} to current_user{acting}")
        await self._pool.execute("; ".join(statements))

    async def _to_role(self, statement: str) -> None:
        # Deleting a database while it is being created changes its role from two sessions at once, and Postgres fails
        # the second one ("tuple concurrently updated"). The change succeeds once the first has committed.
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._pool.execute(statement)
                break
            except asyncpg.InternalServerError:
                if not left:
                    raise

    async def _make_database(self, name: str, template: str) -> None:
        # A new database lets PUBLIC connect. The connection limit of 0 keeps everyone out until that is revoked.
        if await self._is_open(name) is None:
            # A gateway that was presumed dead may still be creating it. Then this statement waits for the other one
            # and fails with a duplicate, which is as good as success.
            with suppress(asyncpg.UniqueViolationError, asyncpg.DuplicateDatabaseError):
                await self._pool.execute(
                    f"create database {quoted(name)} template {template} owner {quoted(name)} connection limit 0"
                )
        await self._pool.execute(for_owner_alone(name))

    async def _copy(self, source: str, name: str, secret: str | None) -> None:
        if await self._is_open(source) is None:
            raise LookupError(f"database {source} does not exist")
        await self._make_role(name, secret)
        await self._make_database_from(source, name)
        await self._hand_over(source, name)
        async with self._pool.acquire() as connection:
            await carry_over(connection, source, name)

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
        # Clients may connect between the first eviction and the lock that CREATE DATABASE takes on its template; it
        # then waits a few seconds for them to leave. So the eviction is repeated until the statement has ended.
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
        inside = await connection_to(self._dsn, name, self._shared, int(self.version))
        try:
            await hand_over(inside, old, name)
        finally:
            await inside.close()

    async def _release(self, role: str) -> None:
        # A role that still has dependencies after its database is gone: an unfinished copy contains objects it owns,
        # or a tenant granted it privileges in another database.
        for row in await self._pool.fetch(_HOLDERS, role):
            name, is_open = row
            if not is_open:
                await self._pool.execute(f"alter database {quoted(name)} allow_connections true")
            try:
                await self._hand_over(role, name)
            finally:
                await self._pool.execute(f"alter database {quoted(name)} allow_connections {is_open}")
        # Privileges on other databases themselves are revoked from any database.
        await self._pool.execute(f"drop owned by {quoted(role)}")

    async def _is_open(self, name: str) -> bool | None:
        """Return whether a database allows connections, or None if it does not exist."""
        found: bool | None = await self._pool.fetchval("select datallowconn from pg_database where datname = $1", name)
        return found


@contextmanager
def _of_own(server: PostgresServer | None) -> Iterator[None]:
    """Report a server of our own that cannot be used, although it has started, as one that did not start."""
    try:
        yield
    except (PostgresUnavailable, asyncpg.DiskFullError, *GONE) as error:
        if server is None:
            raise
        raise server.failure("Postgres has ended right after its start", disk_full=lacks_space(error)) from None


def _mark(directory: Path) -> str:
    """Return the text that distinguishes the roles of this data directory from other roles on the same server."""
    file = directory / "identity"
    if not file.exists():
        write_whole(file, f"infrai-async {secrets.token_hex(16)}")
    return file.read_text()


def _without_names(query: str) -> str:
    named = ("user", "password", "passfile", "database", "dbname")
    return urlencode([(key, value) for key, value in parse_qsl(query) if key not in named])
