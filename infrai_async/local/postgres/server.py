"""Create, start and stop the gateway's own Postgres server.

    <data directory>/postgres/       lock (held by the gateway), identity, place (the path of the cluster directory)
    <cluster directory>/             password, port, hba, log, data/ (the cluster itself)

The cluster directory is `<data directory>/postgres` itself, unless root runs the server as `nobody`, which cannot reach
it there; only then is there a file `place`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import IO, Self

from infrai_async.local._files import can_clone, read_number, remove_tree, write_whole
from infrai_async.local._locks import Lock
from infrai_async.local.postgres.binaries import Binaries, PostgresNotYet, PostgresUnavailable, find
from infrai_async.local.postgres.data_dirs import cluster_dir_of, make_cluster_dir, remove_cluster_dir, sweep
from infrai_async.local.postgres.extensions import allow_extensions
from infrai_async.local.postgres.run_as import RunAs, for_cluster, ladder, reachable
from infrai_async.local.postgres.stale_processes import stop_servers

_logger = logging.getLogger(__name__)
MAX_CONNECTIONS = 300
_PATIENCE = 120.0
_PATIENCE_AT_END = 10.0
_SILENCE_AT_END = 3.0
_LOOK_AT_END = 0.1
_POLL = 0.005
_LARGEST_LOG = 4_000_000
_RECENT = 2_000  # bytes at the end of the log
_DISK_FULL = "No space left on device"
# Text in any language needs the character types of Unicode, which locale C has not; sorting stays bytewise. Before
# version 17 the operating system or ICU must bring them.
_BUILTIN_LOCALE = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
_LOCALES = [
    ["--locale=C.UTF-8"],
    ["--locale=C", "--locale-provider=icu", "--icu-locale=en-US-u-va-posix"],
    ["--locale=C"],
]

LOCAL = "127.0.0.1"

# The role of a tenant can connect only to the database of the same name, whatever privileges it is granted elsewhere.
_HBA = """\
host all postgres 127.0.0.1/32 scram-sha-256
host all postgres all reject
host sameuser all {} scram-sha-256
"""
_EVERYWHERE = {"": ["0.0.0.0"], "0.0.0.0": ["0.0.0.0"], "::": ["0.0.0.0", "::"]}  # noqa: S104 - if the user says so


class PostgresServer:
    """A server for one cluster directory. The creator must hold the `Lock` of the data directory."""

    def __init__(self, directory: Path, cluster_dir: Path, binaries: Binaries, account: RunAs) -> None:
        self.cluster_dir = cluster_dir
        self.data: Path = cluster_dir / "data"
        self.port: int = 0
        self._directory = directory
        self._binaries = binaries
        self._account = account
        self._host = LOCAL
        self._process: asyncio.subprocess.Process | None = None
        self._mark: Lock | None = None
        self._in_a_hurry = False

    @classmethod
    async def start(
        cls, directory: Path, binaries: Path | None = None, *, temporary: bool = False, host: str = LOCAL
    ) -> Self:
        """Start the server of a directory, creating its cluster first if necessary.

        Args:
            directory: `<data directory>/postgres`; the caller must hold its `Lock`.
            binaries: The directory with the server's programs. Default: see ``postgres.binaries``.
            temporary: Whether the cluster may be deleted once this process is gone.
            host: The address to listen on, besides 127.0.0.1.

        Raises:
            PostgresUnavailable: if no server is found or it does not start.
        """
        server = await asyncio.to_thread(cls._settle, directory, binaries)
        server._host = host
        try:
            if temporary and server.cluster_dir != directory:
                server._mark = Lock.as_temporary(server.cluster_dir)
            await server.restart()
        except BaseException:
            await server.stop()
            raise
        return server

    async def restart(self) -> None:
        """Start the server, or restart it after it has died; processes left by a killed gateway are ended first.

        Raises:
            PostgresUnavailable: if it does not start.
        """
        if not self.data.exists():
            await self._make()
        await self._run()

    @classmethod
    def _settle(cls, directory: Path, explicit: Path | None) -> Self:
        sweep()
        cluster_dir = cluster_dir_of(directory)
        if (cluster_dir / "data").exists():
            return cls._existing(directory, cluster_dir, explicit)
        found = find(explicit)
        for account in ladder():
            if programs := reachable(found, account):
                return cls(directory, make_cluster_dir(directory, account), programs, account)
        raise PostgresUnavailable(
            f"user {os.geteuid()} can neither run {found.directory} nor switch to a user that can (root needs the user "
            f"nobody or a user namespace, and a uid without a name needs a user namespace): run as an ordinary user"
        )

    @classmethod
    def _existing(cls, directory: Path, cluster_dir: Path, explicit: Path | None) -> Self:
        found = find(explicit, major=int((cluster_dir / "data" / "PG_VERSION").read_text()))
        owner = (cluster_dir / "data").stat().st_uid
        account = for_cluster(owner)
        programs = reachable(found, account)
        if programs is None:
            raise PostgresUnavailable(
                f"cannot run {found.directory} as user {owner}, the owner of {cluster_dir}: "
                f"run the gateway as that user"
            )
        return cls(directory, cluster_dir, programs, account)

    def dsn(self) -> str:
        """Return the DSN of the superuser, including the password."""
        secret = (self.cluster_dir / "password").read_text()
        return f"postgresql://postgres:{secret}@127.0.0.1:{self.port}/postgres?sslmode=disable"

    async def _make(self) -> None:
        # A random name, since the initdb of a gateway that was killed may still be writing to its directory. Renaming
        # the complete cluster at the end means that `data` never names a half-made one.
        part = self.cluster_dir / f"data.{secrets.token_hex(4)}.part"
        secret = self.cluster_dir / "initial"
        await self._clear_parts()
        password = secrets.token_urlsafe(32)
        write_whole(self.cluster_dir / "password", password)
        write_whole(secret, password, durable=False)
        part.mkdir(mode=0o700)
        for path in (part, secret):
            self._account.give(path)
        try:
            await self._initdb(part, secret)
        finally:
            secret.unlink()
        part.rename(self.data)
        await self._clear_parts()

    async def _clear_parts(self) -> None:
        for left in self.cluster_dir.glob("data*.part"):
            await asyncio.to_thread(remove_tree, left, quietly=True)

    async def _initdb(self, part: Path, secret: Path) -> None:
        for locale in _LOCALES if self._binaries.major < 17 else [_BUILTIN_LOCALE]:
            if not (said := await self._run_initdb(part, secret, locale)):
                return
        if _DISK_FULL in said:
            raise PostgresNotYet(f"{_DISK_FULL.lower()}: the databases cannot be created in {self.cluster_dir}")
        raise PostgresUnavailable(f"initdb failed in {self.cluster_dir}: {said[-800:]}")

    async def _run_initdb(self, part: Path, secret: Path, locale: list[str]) -> str:
        """Run initdb, and return what it said if it failed, else nothing; after a failure the directory is empty."""
        options = ["-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8", *locale]
        if self._binaries.major >= 17 and sys.platform == "linux":
            options.append("--sync-method=syncfs")
        command = self._account.command(self._binaries.program("initdb"), "-D", str(part), *options)
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, **self._account.options()
        )
        try:
            said, _ = await process.communicate()
        except BaseException:
            await _end(process, signal.SIGKILL)
            raise
        return (said.decode(errors="replace").strip() or "it said nothing") if process.returncode else ""

    async def _run(self) -> None:
        from_where = "all" if self._addresses() != [LOCAL] else f"{LOCAL}/32"
        write_whole(self.cluster_dir / "hba", _HBA.format(from_where), mode=0o644, durable=False)
        for port in (read_number(self.cluster_dir / "port") or 0, 0, 0):
            # Before every attempt: a server that a killed gateway had just started may write its pid file only now.
            await asyncio.to_thread(stop_servers, self.data)
            self.port = _free_port(port, self._addresses()[0])
            with self._log() as log:
                if await self._started(log):
                    write_whole(self.cluster_dir / "port", str(self.port), durable=False)
                    return
        if self._is_disk_full():
            raise PostgresNotYet(f"{_DISK_FULL.lower()}: Postgres cannot start in {self.cluster_dir}")
        raise PostgresUnavailable(f"Postgres does not start; see its log: tail {self.cluster_dir / 'log'}")

    def _is_disk_full(self) -> bool:
        log = (self.cluster_dir / "log").read_bytes()
        return _DISK_FULL.encode() in log[-_RECENT:]

    def _log(self) -> IO[bytes]:
        path = self.cluster_dir / "log"
        path.touch(mode=0o600)
        log = path.open("ab")
        if log.tell() > _LARGEST_LOG:
            log.truncate(0)
        return log

    async def _started(self, log: IO[bytes]) -> bool:
        command = self._account.command(self._binaries.program("postgres"), "-D", str(self.data), *self._settings())
        # In its own session, because Ctrl-C in a terminal would otherwise end the server before the gateway is done.
        self._process = process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, start_new_session=True, **self._account.options()
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._ready(process)
        except TimeoutError:
            raise PostgresUnavailable(
                f"Postgres did not become ready within {_PATIENCE:.0f} seconds; see its log: "
                f"tail {self.cluster_dir / 'log'}"
            ) from None

    async def _ready(self, process: asyncio.subprocess.Process) -> bool:
        while process.returncode is None:
            if self._is_ready(process.pid):
                return True
            await asyncio.sleep(_POLL)
        return False

    def _is_ready(self, pid: int) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"

    def _settings(self) -> list[str]:
        settings: dict[str, object] = {
            "listen_addresses": ",".join(self._addresses()),
            "port": self.port,
            "unix_socket_directories": "",
            "hba_file": self.cluster_dir / "hba",
            "max_connections": MAX_CONNECTIONS,
            "superuser_reserved_connections": 10,
            "shared_buffers": "32MB",
            "wal_level": "minimal",
            "max_wal_senders": 0,
            "max_worker_processes": 2,
            "max_parallel_workers": 0,
            "autovacuum_max_workers": 2,
            "jit": "off",
            "timezone": "UTC",
            # Failing statements are not logged, because they may contain a tenant's data.
            "log_min_error_statement": "panic",
        }
        if sys.platform == "linux":
            settings["recovery_init_sync_method"] = "syncfs"
        if self._binaries.major >= 18:
            settings["io_method"] = "sync"
            if can_clone(self.cluster_dir):
                settings["file_copy_method"] = "clone"
            if (allowed := allow_extensions(self._binaries, self.cluster_dir)) is not None:
                settings["extension_control_path"] = f"{allowed}:$system"
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _addresses(self) -> list[str]:
        return _EVERYWHERE.get(self._host) or list(dict.fromkeys((LOCAL, self._host)))

    async def stop(self) -> None:
        """Stop the server for good, disconnecting its clients; committed data is kept. Idempotent."""
        await self.halt()
        self._unmark()

    async def halt(self) -> None:
        """Stop the server; it may be restarted."""
        # A fast shutdown ends with a checkpoint, which takes long on a slow disk after hundreds of new databases.
        if self._process is not None and not await self._ended_fast(self._process):
            await self._end(signal.SIGQUIT, signal.SIGKILL)

    def hurry(self) -> None:
        """Make a stop that waits for its checkpoint end at once; the next start then repeats what the WAL holds."""
        self._in_a_hurry = True

    async def _ended_fast(self, process: asyncio.subprocess.Process) -> bool:
        """Stop the server with a checkpoint, however long that takes; return whether it ended before ``hurry``."""
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        waiting, told, begun = asyncio.ensure_future(process.wait()), False, time.monotonic()
        try:
            while not self._in_a_hurry:
                if (await asyncio.wait({waiting}, timeout=_LOOK_AT_END))[0]:
                    return True
                if not told and time.monotonic() - begun > _SILENCE_AT_END:
                    told = True
                    _logger.warning("Postgres is writing its data to disk before it stops; another signal skips that")
            return False
        finally:
            waiting.cancel()

    async def remove(self) -> None:
        """Stop the server and delete its cluster; idempotent."""
        await self._end(signal.SIGQUIT, signal.SIGKILL)
        await asyncio.to_thread(remove_cluster_dir, self._directory, self.cluster_dir)
        self._unmark()

    async def died(self) -> None:
        """Wait until the server has exited, for whatever reason."""
        if self._process is not None:
            await self._process.wait()

    def _unmark(self) -> None:
        if self._mark is not None:
            self._mark.release()

    async def _end(self, *signals: signal.Signals) -> None:
        if self._process is not None:
            await _end(self._process, *signals)


async def _end(process: asyncio.subprocess.Process, *signals: signal.Signals) -> None:
    for number in signals:
        if process.returncode is None:
            process.send_signal(number)
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE_AT_END)
        except TimeoutError:
            continue
        return


def _free_port(wanted: int, address: str) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, wanted))
        except OSError:
            probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
