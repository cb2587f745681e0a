"""Run jobs against the state: writes on one thread with group commit, reads beside it; the state here is SQLite.

A job is a function of a connection. All waiting jobs run in one transaction, each in its own savepoint, and receive
their results once the transaction is durable. One fsync thus serves many jobs, and a failing job does not affect the
others. Only connecting and where reads run is specific to SQLite; ``state.postgres_store`` overrides that.

A single writer also makes the jobs serializable: none of them can see the state change between its statements.

A read sees all that was acknowledged before it began, without waiting for the writer. What it costs is charged by the
writer, which needs one statement for all charges of an account in a batch.
"""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import attrs
import sqlalchemy as sa
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from infrai_async.local._errors import RequestRefused
from infrai_async.local.state import tables

T = TypeVar("T")
_MOST: Final = 128
"""The most jobs in one commit; without a limit the first job could wait forever under constant load."""


@attrs.frozen
class _Job(Generic[T]):
    run: Callable[[Connection], T]
    done: asyncio.Future[T]


@attrs.frozen(eq=False)
class _Charge:
    """An amount to take from an account's wallet; the result is whether it held that much."""

    account: str
    nano: int
    done: asyncio.Future[bool]


class Store:
    """Run jobs against the state; each takes effect completely or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._jobs: queue.SimpleQueue[_Job[Any] | _Charge | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._reader: Connection | None = None

    async def open(self) -> None:
        """Create the tables if necessary, and start the writer thread.

        Raises:
            OSError: if the file is not the state of a gateway, or cannot be read or written.
        """
        engine = await asyncio.to_thread(self._connect)
        await self._open_reader()
        self._thread = threading.Thread(target=self._work, args=(engine,), name="infrai-gateway-state", daemon=True)
        self._thread.start()

    def _connect(self) -> sa.Engine:
        try:
            return _connect(self._path)
        except DBAPIError as error:
            message = (
                f"the gateway's state cannot be used ({error.orig}): give another --data-dir, or move this file away"
            )
            raise OSError(errno.EIO, message, str(self._path)) from None

    async def run(self, job: Callable[[Connection], T]) -> T:
        """Run ``job`` and return its result once it is durable.

        If the job raises an exception, its changes are rolled back and the exception is raised here. Cancelling the
        caller does not stop the job.

        Raises:
            RequestRefused: 503, if the store is closed.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._put(_Job(job, done))
        return await done

    async def read(self, job: Callable[[Connection], T]) -> T:
        """Run ``job``, which changes nothing, and return its result.

        It sees everything that was acknowledged before.

        Raises:
            RequestRefused: 503, if the store is closed.
        """
        if self._reader is None:
            raise _closed()
        # In this thread: a read takes less time than passing it to another one. Its transaction, in which it sees one
        # state, begins and ends past SQLAlchemy, which would take as long for that as for the read.
        raw: Any = self._reader.connection.driver_connection
        try:
            raw.execute("BEGIN")
            try:
                return job(self._reader)
            finally:
                raw.execute("ROLLBACK")
        except (OperationalError, sqlite3.OperationalError):
            return await self.run(job)  # locked by another process for a moment; the writer waits for it

    async def charge(self, account: str, nano: int) -> bool:
        """Take an amount from an account's wallet, durably; return False, and take nothing, if it holds less.

        Raises:
            RequestRefused: 503, if the store is closed.
        """
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._put(_Charge(account, nano, done))
        return await done

    def _put(self, job: _Job[Any] | _Charge) -> None:
        if self._thread is None:
            raise _closed()
        self._jobs.put(job)

    async def aclose(self) -> None:
        """Finish all jobs and end the writer thread."""
        thread, self._thread = self._thread, None
        await self._close_reader()
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def _open_reader(self) -> None:
        reading = _engine(self._path, "query_only = ON", "busy_timeout = 0")
        self._reader = reading.connect().execution_options(isolation_level="AUTOCOMMIT")

    async def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _work(self, engine: sa.Engine) -> None:
        with engine.connect() as connection:
            while batch := self._take():
                _settle(batch, _commit(connection, batch))
        engine.dispose()

    def _take(self) -> list[_Job[Any] | _Charge]:
        """Wait for a job, and return it with all others that are waiting; return an empty batch once closed."""
        batch: list[_Job[Any] | _Charge] = []
        while len(batch) < _MOST and not (batch and self._jobs.empty()):
            job = self._jobs.get()
            if job is None:
                if batch:
                    self._jobs.put(None)  # commit this batch first; the next call sees the end again
                break
            batch.append(job)
        return batch


def _closed() -> RequestRefused:
    return RequestRefused(503, "VENDOR_UNAVAILABLE", "the gateway's state is closed")


def _engine(path: Path, *pragmas: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=NullPool, connect_args={"check_same_thread": False})
    event.listen(engine, "connect", partial(_set_up, pragmas))
    return engine


def _connect(path: Path) -> sa.Engine:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = _engine(path, "busy_timeout = 10000")
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    with engine.begin() as connection:
        tables.prepare(connection)
    return engine


def _set_up(pragmas: Sequence[str], connection: Any, _: Any) -> None:
    """Disable the driver's implicit transactions, and make every commit durable."""
    connection.isolation_level = None
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", *pragmas):
        connection.execute(f"PRAGMA {pragma}")


def _commit(connection: Connection, batch: Sequence[_Job[Any] | _Charge]) -> list[Any]:
    try:
        with _begun(connection):
            charges = [job for job in batch if isinstance(job, _Charge)]
            charged = _charged(connection, charges) if charges else {}
            return [charged[job] if isinstance(job, _Charge) else _attempt(connection, job) for job in batch]
    except Exception as error:  # noqa: BLE001 - the writer must survive, and every waiting caller gets the error
        return [error] * len(batch)


def _begun(connection: Connection) -> sa.RootTransaction:
    try:
        return connection.begin()
    except Exception:
        if not connection.invalidated:
            raise
        return connection.begin()  # the connection was lost while idle, so nothing is lost by reconnecting


def _attempt(connection: Connection, job: _Job[Any]) -> Any:
    try:
        with connection.begin_nested():
            return job.run(connection)
    except Exception as error:
        if connection.invalidated:
            raise  # the connection is lost, and with it the transaction and the work of the other jobs
        return error  # the savepoint has rolled back this job alone


def _charged(connection: Connection, charges: Sequence[_Charge]) -> dict[_Charge, bool]:
    """Carry out the charges of a batch: those of an account together, or one by one where it cannot pay them all."""
    outcomes: dict[_Charge, bool] = {}
    sums = Counter[str]()
    for charge in charges:
        sums[charge.account] += charge.nano
    paid = {account: tables.spend(connection, account, nano) for account, nano in sums.items()}
    for charge in charges:
        outcomes[charge] = paid[charge.account] or tables.spend(connection, charge.account, charge.nano)
    return outcomes


def _settle(batch: Sequence[_Job[Any] | _Charge], outcomes: Sequence[Any]) -> None:
    loop = batch[0].done.get_loop()
    loop.call_soon_threadsafe(_hand_over, tuple(zip(batch, outcomes, strict=True)))


def _hand_over(pairs: Sequence[tuple[_Job[Any] | _Charge, Any]]) -> None:
    for job, outcome in pairs:
        if job.done.done():
            continue  # the caller was cancelled; the job is committed nevertheless
        if isinstance(outcome, Exception):
            job.done.set_exception(outcome)
        else:
            job.done.set_result(outcome)
