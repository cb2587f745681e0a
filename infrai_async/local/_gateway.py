"""``LocalGateway``, the public class of the gateway: it builds, starts and closes all parts."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import tempfile
import threading
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self
from urllib.parse import urlsplit

from aiohttp import web

from infrai_async._running import serving
from infrai_async.local._app import Application, Endpoint
from infrai_async.local._files import read_number, remove_tree, write_whole
from infrai_async.local._locks import Lock
from infrai_async.local.edge.endpoint import Edge
from infrai_async.local.faults.control_api import ControlApi
from infrai_async.local.faults.faults import Faults
from infrai_async.local.faults.injector import FaultInjector
from infrai_async.local.http.envelope import NANO
from infrai_async.local.http.host_guard import HostGuard
from infrai_async.local.http.server import Server, told_once_of_lacking_descriptors
from infrai_async.local.lifecycle.heartbeat import Heartbeat
from infrai_async.local.lifecycle.janitor import Janitor
from infrai_async.local.lifecycle.own_thread import OwnThread
from infrai_async.local.lifecycle.shielded import to_the_end
from infrai_async.local.lifecycle.supervisor import Supervisor
from infrai_async.local.objects.blobs import Blobs
from infrai_async.local.objects.s3 import S3
from infrai_async.local.objects_endpoint import ObjectsEndpoint
from infrai_async.local.pages import dashboard
from infrai_async.local.pages.checkout import Checkout
from infrai_async.local.postgres.data_dirs import PREFIX
from infrai_async.local.postgres.databases import Postgres, Shared
from infrai_async.local.services.account import FULL, open_account
from infrai_async.local.services.auth import Keys
from infrai_async.local.services.base import Address, PostgresStatus, ServiceContext, iso
from infrai_async.local.services.executor import Executor
from infrai_async.local.state.keyring import FIRST_ACCOUNT, Keyring
from infrai_async.local.state.postgres_store import SharedStore, bind
from infrai_async.local.state.store import Store

_GRACE: Final = 5.0
"""Seconds that requests in progress, and after them pending drops of databases, may take when the gateway closes."""
_POLL: Final = 0.1
_NOT_STARTED: Final = "the gateway is not started: use it in 'with' or 'async with', or call start()"
_RUNNING: Final = "the gateway is already running: use either 'with' or 'async with', once at a time"
_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}  # noqa: S104 - how to reach them


class LocalGateway:
    """A server for Infrai's API on this machine, with persistent state and a real Postgres.

    In blocking code ``with`` runs it in a thread of its own, which ends with the block, or with the program::

        with LocalGateway() as gateway:
            client = Infrai(gateway.api_key, base_url=gateway.base_url)

    In coroutines it can share their event loop: with ``async with``, or ``start`` and ``aclose``::

        async with LocalGateway() as gateway:
            client = AsyncInfrai(gateway.api_key, base_url=gateway.base_url)

    ``faults``, ``limit`` and the properties can be used from any thread.

    Args:
        data_dir: the directory for the state; the same directory has the same key, wallet and databases again.
            Default: a temporary directory, which is deleted with everything in it when the gateway closes.
        host: the address to listen on; its own Postgres listens there too.
        port: the port to listen on. 0 uses the last port of this data directory if it is free, else any free port.
        public_url: the address by which callers elsewhere reach the gateway, such as ``http://gateway:8000`` in a
            network of containers: everything that it gives out names it, databases included. Default: the host that a
            request asked for, if ``host`` or ``allow_hosts`` name it.
        postgres_dsn: ``postgresql://...`` of an existing server, for a role with CREATEDB and CREATEROLE. Default: the
            gateway starts a server of its own. If ``data_dir`` is given too, the state is kept on that server (extra
            ``postgres``), and gateways with the same DSN, each with its own directory, serve one account.
        postgres_bin: the directory with the programs of the Postgres to start. Default: those of the extra ``local``,
            else installed ones.
        s3_endpoint: ``http://host:port`` of an S3-compatible store that keeps the objects instead of the gateway. The
            credentials are taken from ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``, and the region from
            ``AWS_REGION`` if it is set.
        credit: the trial credit of a new account, in USD.
        allow_hosts: further host names that requests may use for the gateway, besides loopback names and ``host``.

    Raises:
        ValueError: if ``public_url``, ``s3_endpoint``, its credentials or ``credit`` are invalid, or an extra is
            missing.
    """

    def __init__(
        self,
        data_dir: str | Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        public_url: str | None = None,
        postgres_dsn: str | None = None,
        postgres_bin: str | Path | None = None,
        s3_endpoint: str | None = None,
        credit: str | Decimal = "2.00",
        allow_hosts: Iterable[str] = (),
    ) -> None:
        self._s3 = None if s3_endpoint is None else S3(s3_endpoint)
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._host = host
        self._port = port
        self._dsn = postgres_dsn
        self._shared = None if data_dir is None or postgres_dsn is None else SharedStore(postgres_dsn)
        self._binaries = None if postgres_bin is None else Path(postgres_bin)
        self._credit = _nano(credit)
        self._public_url = None if public_url is None else _checked(public_url)
        public_host = () if self._public_url is None else (urlsplit(self._public_url).netloc,)
        self._guard = HostGuard((host, *public_host, *allow_hosts))
        self._injector = FaultInjector()
        self._context: ServiceContext | None = None
        self._application: Application | None = None
        self._closing = AsyncExitStack()
        self._one_at_a_time = asyncio.Lock()
        self._thread: OwnThread | None = None
        self._hurry = threading.Event()

    def __repr__(self) -> str:
        return f"<LocalGateway {self._context.address.base_url if self._context else 'not started'}>"

    def __enter__(self) -> Self:
        if self._thread is not None or self._context is not None:
            raise RuntimeError(_RUNNING)
        self._thread = OwnThread(self, "infrai-gateway")
        try:
            self._thread.start()
        except BaseException:
            self._thread = None
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                thread.stop()
            except KeyboardInterrupt:
                self.hurry()
                raise

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def base_url(self) -> str:
        """The gateway's address on this machine, without ``/v1`` and without a trailing slash."""
        return self._running.address.base_url

    @property
    def api_key(self) -> str:
        """The API key of the account that every gateway has from its first start."""
        return self._running.keyring.api_key(FIRST_ACCOUNT)

    @property
    def faults(self) -> Faults:
        """The faults of the next calls, for testing how a program handles failures."""
        return self._injector.faults

    def limit(self, rate: float | None = 100, burst: int = 20) -> None:
        """Limit the rate of calls per account; calls beyond the limit get a 429 that says how long to wait.

        Args:
            rate: calls per second and account, where all calls without a key count as one account; ``None`` removes
                the limit.
            burst: the number of calls that may be made at once after a pause.

        Raises:
            ValueError: if an argument is invalid; the message names it.
        """
        self._injector.set_limit(rate, burst)

    @property
    def _running(self) -> ServiceContext:
        if self._context is None:
            raise RuntimeError(_NOT_STARTED)
        return self._context

    def serve_generation(self, generation: Literal["seed", "current"] | None) -> None:
        """Serve only one generation of routes where there are two (``storage``), as the real service may do.

        Args:
            generation: ``"seed"`` for the routes of the seed documents, ``"current"`` for their successors, ``None``
                for both.
        """
        if self._application is None:
            raise RuntimeError(_NOT_STARTED)
        self._application.serve_generation({"seed": 0, "current": 1, None: None}[generation])

    async def start(self) -> None:
        """Start the gateway. Postgres starts in the background, and calls that need it wait for it.

        Where it cannot be used, all else works, and ``database_fault`` says why.

        Raises:
            DirectoryInUse: if another gateway uses the same data directory.
            OSError: if the address is in use, the data directory cannot be written or belongs to another state, or the
                server of ``postgres_dsn`` cannot hold the state.
            RuntimeError: if the gateway is already running.
        """
        async with self._one_at_a_time:
            if self._context is not None or self._is_elsewhere():
                raise RuntimeError(_RUNNING)
            undo = AsyncExitStack()
            try:
                await self._start(undo)
            except BaseException:
                await to_the_end(undo.aclose())
                raise
            self._closing = undo

    async def aclose(self) -> None:
        """Stop the gateway: finish requests in progress, then stop Postgres, then close the state. Idempotent.

        A start in progress is awaited. Cancelling the caller does not interrupt the stop, since a Postgres server would
        otherwise be left running.

        Raises:
            RuntimeError: if the gateway runs in a thread of its own, by ``with``.
        """
        if self._is_elsewhere():
            raise RuntimeError("the gateway runs in a thread of its own: leave its 'with' block instead")
        await to_the_end(self._close())

    def _is_elsewhere(self) -> bool:
        """Return whether the gateway is for ``with`` alone, and another thread than its own asks."""
        return self._thread is not None and not self._thread.is_here()

    async def database_fault(self) -> str | None:
        """Wait until databases can be used, and return ``None``; or return the reason why they cannot."""
        status = self._running.postgres_status
        while True:
            await status.settled.wait()
            if status.server is not None:
                return None
            if (reason := status.missing or status.delayed) is not None:
                return reason
            await asyncio.sleep(_POLL)  # what a crash has left unfinished is about to be tried again

    def hurry(self) -> None:
        """Make ``aclose`` end its own Postgres at once instead of waiting for its checkpoint; from any thread.

        No data is lost, but the next start takes longer.
        """
        self._hurry.set()

    async def _close(self) -> None:
        async with self._one_at_a_time:
            self._context = self._application = None
            await self._closing.aclose()

    async def _start(self, undo: AsyncExitStack) -> None:
        self._hurry.clear()
        directory = self._directory(undo)
        state = directory / "state"
        undo.callback(_taken(state).release)
        store, keyring = await self._open_state(state, undo)
        blobs = Blobs(directory / "objects", store)
        await blobs.open()
        if self._s3 is not None:
            undo.push_async_callback(self._s3.aclose)
            await self._s3.open()
        address, postgres_status = Address(public_url=self._public_url), PostgresStatus()
        janitor = Janitor(store, blobs, postgres_status)
        edge = Edge(store, state, address, postgres_status)
        context = ServiceContext(
            store=store,
            keyring=keyring,
            credit=self._credit,
            blobs=blobs,
            s3=self._s3,
            address=address,
            postgres_status=postgres_status,
            wake=janitor.wake,
            edge_changed=edge.changed,
            count_traffic=edge.count_traffic,
        )
        await store.run(partial(open_account, context=context, id=FIRST_ACCOUNT, now=iso(datetime.now(UTC))))
        executor = Executor(context)
        await self._run_beside(directory, context, executor, janitor, undo)
        application = self._application_of(context, executor, edge, undo)
        await self._listen(state, address, application, undo)
        self._context, self._application = context, application

    async def _run_beside(
        self, directory: Path, context: ServiceContext, executor: Executor, janitor: Janitor, undo: AsyncExitStack
    ) -> None:
        """Start the background tasks, and resume the operations that an earlier run of the gateway left unfinished.

        The callbacks run in reverse order when the gateway closes: the supervisor first, so that no recovery starts any
        more; then the executor, whose effects still need Postgres; then the janitor; then Postgres; and the heartbeat
        last, so that other gateways do not take over operations that are still being carried out.
        """
        heartbeat = Heartbeat(context, executor)
        undo.push_async_callback(heartbeat.aclose)
        await heartbeat.start(alone=self._shared is None)
        supervisor = Supervisor(
            context.postgres_status,
            partial(self._start_postgres, directory, context),
            partial(_make_whole, janitor, executor),
        )
        undo.push_async_callback(self._stop_postgres, context.postgres_status, supervisor)
        undo.push_async_callback(janitor.aclose, _GRACE if self._data_dir else 0)
        undo.push_async_callback(executor.aclose)
        undo.push_async_callback(supervisor.aclose)
        if self._s3 is not None:
            await executor.finish("storage.")
        janitor.start()

    def _application_of(
        self, context: ServiceContext, executor: Executor, edge: Edge, undo: AsyncExitStack
    ) -> Application:
        keys, objects = Keys(context.store), ObjectsEndpoint(context)
        undo.push_async_callback(objects.drain)
        undo.push_async_callback(edge.aclose)
        edge.start()
        endpoints: dict[str, Endpoint] = {
            "": partial(dashboard.answer, context),
            "objects": objects,
            "edge": edge.answer,
            "checkout": Checkout(context).answer,
            "_gateway": ControlApi(self._injector, keys).answer,
        }
        return Application(
            context, executor, guard=self._guard, keys=keys, injector=self._injector, endpoints=endpoints
        )

    def _directory(self, undo: AsyncExitStack) -> Path:
        if self._data_dir is not None:
            return self._data_dir
        temporary = Path(tempfile.mkdtemp(prefix=PREFIX))
        undo.callback(Lock.as_temporary(temporary).release)
        undo.push_async_callback(asyncio.to_thread, remove_tree, temporary)
        return temporary

    async def _open_state(self, state: Path, undo: AsyncExitStack) -> tuple[Store, Keyring]:
        if self._shared is None:
            bind(state, None)
        store = self._shared or Store(state / "state.db")
        undo.push_async_callback(store.aclose)
        await store.open()
        if self._shared is None:
            return store, Keyring.open(state)
        keyring = await store.run(Keyring.shared)
        bind(state, keyring.mark())
        return store, keyring

    async def _listen(self, state: Path, address: Address, application: Application, undo: AsyncExitStack) -> None:
        undo.enter_context(told_once_of_lacking_descriptors())
        runner = web.ServerRunner(Server(application.handle), shutdown_timeout=_GRACE)
        undo.push_async_callback(runner.cleanup)
        await runner.setup()
        await self._bind(runner, state / "port")
        host = _WILDCARDS.get(self._host, f"[{self._host}]" if ":" in self._host else self._host)
        port = runner.addresses[0][1]
        address.base_url = f"http://{host}:{port}"  # without an await since listening: requests may arrive already
        public = () if self._public_url is None else (self._public_url,)
        undo.enter_context(serving(runner.addresses, self._guard.names, address.base_url, *public))
        await asyncio.to_thread(write_whole, state / "port", str(port), durable=False)

    async def _bind(self, runner: web.ServerRunner, last: Path) -> None:
        """Listen on the given port, or on the last port of this data directory, or on any free port."""
        wanted = self._port or (read_number(last) or 0)
        try:
            # Cancelling TCPSite.start leaks its socket.
            await to_the_end(web.TCPSite(runner, self._host, wanted).start())
        except OSError as error:
            if self._port or not wanted:
                raise _not_listening(error, self._host, wanted) from None
            await to_the_end(web.TCPSite(runner, self._host, 0).start())

    # --- Postgres ------------------------------------------------------------------------------------------------

    async def _start_postgres(self, directory: Path, context: ServiceContext) -> Postgres:
        return await Postgres.start(
            directory,
            dsn=self._dsn,
            binaries=self._binaries,
            temporary=self._data_dir is None,
            host=self._host,
            hurry=self._hurry,
            shared=Shared(context.keyring.mark(), self._shared.database, context.id) if self._shared else None,
        )

    async def _stop_postgres(self, status: PostgresStatus, supervisor: Supervisor) -> None:
        postgres, status.server = supervisor.postgres, None
        if postgres is None:
            return
        temporary = self._data_dir is None
        try:
            if temporary and self._dsn is not None:
                for name in await postgres.databases():
                    await postgres.drop(name)
        finally:
            await postgres.aclose(remove=temporary)


def _not_listening(error: OSError, host: str, port: int) -> OSError:
    """Return the error for an address that cannot be listened on, with the option that changes it."""
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        where, option = host, "--host"
    else:
        where, option = f"port {port} of {host}", "--port"
    number = error.errno or 0  # negative if the name of the host was not resolved
    reason = (
        os.strerror(number).lower() if number > 0 else error.strerror or str(error)
    )  # asyncio's text repeats the address
    return OSError(error.errno, f"cannot listen on {where} ({reason}): give another {option}")


def _taken(state: Path) -> Lock:
    """Create the state's part of a data directory, and lock it for this gateway."""
    try:
        state.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.mkdir(mode=0o700, exist_ok=True)
        return Lock.on(state)
    except OSError as error:
        message = f"the data directory cannot be used ({error.strerror}): give another --data-dir"
        raise OSError(error.errno, message, error.filename) from None


async def _make_whole(janitor: Janitor, executor: Executor, postgres: Postgres) -> None:
    await janitor.reconcile(postgres)
    await executor.finish("db.")
    janitor.wake()


def _checked(public_url: str) -> str:
    """Return the public address without ``/v1`` and a trailing slash."""
    try:
        parts = urlsplit(public_url.strip())
        sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and public_url.isprintable()
        if not sound or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError
    except ValueError:
        message = "public_url: must be the gateway's address as others see it, such as http://gateway:8000"
        raise ValueError(message) from None
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1').rstrip('/')}"


def _nano(credit: str | Decimal) -> int:
    try:
        nano = Decimal(credit) * NANO
        if not 0 <= nano <= FULL or nano % 1:
            raise ValueError
    except (ArithmeticError, TypeError, ValueError):
        raise ValueError(f"credit: {credit!r} is not an amount of USD such as '2.00'") from None
    return int(nano)
