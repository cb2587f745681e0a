"""Create, start and stop the gateway's own Postgres server.

    <data directory>/postgres/       lock (held by the gateway), identity, place (the path of the cluster directory)
    <cluster directory>/             password, port, hba, log, data/ (the cluster itself)

The cluster directory is `<data directory>/postgres` itself, unless root runs the server as `nobody`, which cannot reach
it there; only then is there a file `place`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from infrai_async.local._files import can_clone, read_number, remove_tree, write_whole
from infrai_async.local._locks import DirectoryInUse, Lock
from infrai_async.local.postgres.binaries import Binaries, DiskFull, PostgresNotYet, PostgresUnavailable, find
from infrai_async.local.postgres.data_dirs import IN_USE, cluster_dir_of, make_cluster_dir, remove_cluster_dir, sweep
from infrai_async.local.postgres.extensions import allow_extensions
from infrai_async.local.postgres.run_as import RunAs, for_cluster, ladder, reachable
from infrai_async.local.postgres.stale_processes import stop_servers

MAX_CONNECTIONS = 300
_PATIENCE_AT_END = 10.0
_SILENCE_AT_END = 3.0
_REMIND = 30.0
_LOOK = 0.1
_POLL = 0.005
_SEGMENT = 16 * 2**20  # of the WAL; a server that cannot make a new one dies
_NO_SPACE = "No space left on device"
_NO_LOCALE = re.compile(r"invalid locale name|encoding mismatch|ICU is not supported|could not open collator")
_logger = logging.getLogger(__name__)
_LARGEST_LOG = 4_000_000

LOCAL = "127.0.0.1"

# The role of a tenant can connect only to the database of the same name, whatever privileges it is granted elsewhere.
_HBA = """\
host all postgres 127.0.0.1/32 scram-sha-256
host all postgres all reject
host sameuser all {} scram-sha-256
"""
_EVERYWHERE = {"": ["0.0.0.0"], "0.0.0.0": ["0.0.0.0"], "::": ["0.0.0.0", "::"]}  # noqa: S104 - if the user says so


class PostgresServer:
    """A server for one cluster directory. The creator must hold the `Lock` of the data directory.

    Attributes:
        hurry: When it is set, nothing is waited for any more that the next start can make up for.
    """

    def __init__(self, directory: Path, cluster_dir: Path, binaries: Binaries, account: RunAs) -> None:
        self.cluster_dir = cluster_dir
        self.data: Path = cluster_dir / "data"
        self.port: int = 0
        self._directory = directory
        self._binaries = binaries
        self._account = account
        self._host = LOCAL
        self.hurry: threading.Event = threading.Event()
        self._log_begin = 0
        self._process: asyncio.subprocess.Process | None = None
        self._held: list[Lock] = []

    @classmethod
    async def start(
        cls,
        directory: Path,
        binaries: Path | None = None,
        *,
        temporary: bool = False,
        host: str = LOCAL,
        hurry: threading.Event | None = None,
    ) -> Self:
        """Start the server of a directory, creating its cluster first if necessary.

        Args:
            directory: `<data directory>/postgres`; the caller must hold its `Lock`.
            binaries: The directory with the server's programs. Default: see ``postgres.binaries``.
            temporary: Whether the cluster may be deleted once this process is gone.
            host: The address to listen on, besides 127.0.0.1.
            hurry: See the attribute.

        Raises:
            PostgresNotYet: if it does not start.
            PostgresUnavailable: if no server is found.
        """
        server = await asyncio.to_thread(cls._settle, directory, binaries)
        server._host = host
        server.hurry = hurry or server.hurry
        try:
            if server.cluster_dir != directory:
                server._held.append(_taken(server.cluster_dir))
                server._held += [Lock.as_temporary(server.cluster_dir)] if temporary else []
            await server.restart()
        except BaseException:
            await server.stop()
            raise
        return server

    async def restart(self) -> None:
        """Start the server, or restart it after it has died; processes left by a killed gateway are ended first.

        Raises:
            PostgresNotYet: if it does not start.
        """
        try:
            if not self.data.exists():
                await self._make()
            await self._run()
        except OSError as error:
            if not lacks_space(error):
                raise
            raise self.failure("Postgres does not start", disk_full=True) from error

    @classmethod
    def _settle(cls, directory: Path, explicit: Path | None) -> Self:
        cluster_dir = cluster_dir_of(directory)
        sweep()
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
        options = ["-U", "postgres", "-A", "scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
        if self._binaries.major >= 17 and sys.platform == "linux":
            options.append("--sync-method=syncfs")
        said = ""
        for locale in locales(self._binaries.major):
            said = await self._run_initdb(part, [*options, *locale])
            if not _NO_LOCALE.search(said):
                break
        if said:
            raise self.failure(f"initdb failed in {self.cluster_dir}: {said[-800:]}", disk_full=_NO_SPACE in said)

    async def _run_initdb(self, part: Path, options: list[str]) -> str:
        """Run initdb, and return what it said if it failed, else nothing; after a failure the directory is empty."""
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
            if self.hurry.is_set() or self.is_disk_full():
                break
        raise self.failure("Postgres does not start")

    def failure(self, what: str, *, disk_full: bool = False) -> PostgresNotYet:
        """Return the error for a server that does not run, with the reason if it is a full disk."""
        if disk_full or self.is_disk_full():
            return DiskFull(f"no space left on device: Postgres cannot run until there is some in {self.cluster_dir}")
        return PostgresNotYet(f"{what}; see its log: tail {self.cluster_dir / 'log'}")

    def is_disk_full(self) -> bool:
        """Return whether the server, since its last start, has died for lack of space on its disk."""
        # A server that dies frees what it could not fill, and the log is on the same disk: neither tells everything.
        with suppress(OSError), (self.cluster_dir / "log").open("rb") as log:
            log.seek(self._log_begin)
            if _NO_SPACE.encode() in log.read(_LARGEST_LOG):
                return True
        disk = os.statvfs(self.cluster_dir)
        return disk.f_bavail * disk.f_frsize < _SEGMENT

    def _log(self) -> IO[bytes]:
        path = self.cluster_dir / "log"
        path.touch(mode=0o600)
        log = path.open("ab")
        if log.tell() > _LARGEST_LOG:
            log.truncate(0)
        self._log_begin = log.seek(0, os.SEEK_END)
        return log

    async def _started(self, log: IO[bytes]) -> bool:
        command = self._account.command(self._binaries.program("postgres"), "-D", str(self.data), *self._settings())
        # In its own session, because Ctrl-C in a terminal would otherwise end the server before the gateway is done.
        self._process = process = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, start_new_session=True, **self._account.options()
        )
        return await self._ready(process)

    async def _ready(self, process: asyncio.subprocess.Process) -> bool:
        # Without a limit: a recovery that was cut off would only start over. It ends, one way or the other.
        begun, said = time.monotonic(), _SILENCE_AT_END
        while process.returncode is None and not self.hurry.is_set():
            if self._is_ready(process.pid):
                return True
            await asyncio.sleep(_POLL)
            if (waited := time.monotonic() - begun) > said:
                _logger.warning(
                    "Postgres is starting, %.0f s so far: it recovers what was not yet in its place", waited
                )
                said += _REMIND
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
        """Stop the server; it may be restarted.

        A fast shutdown ends with a checkpoint, which may take long after many writes or on a slow disk. Cutting it off
        would lose nothing, but the next start would have to make up for it before it answers anything. Only `hurry`
        does that.
        """
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGINT)
        if not await self._has_stopped(self._process):
            await _end(self._process, signal.SIGQUIT, signal.SIGKILL)

    async def _has_stopped(self, process: asyncio.subprocess.Process) -> bool:
        """Wait until the server has stopped or there is a hurry, and return whether it has stopped."""
        stopped, begun, silence = asyncio.ensure_future(process.wait()), time.monotonic(), _SILENCE_AT_END
        try:
            while not self.hurry.is_set() and not (await asyncio.wait({stopped}, timeout=_LOOK))[0]:
                if (waited := time.monotonic() - begun) > silence:
                    silence += _REMIND
                    _logger.warning(
                        "Postgres is writing its data to disk before it stops, %.0f s so far; another signal skips "
                        "that: nothing committed is lost, but the next start takes longer",
                        waited,
                    )
        finally:
            stopped.cancel()
        return process.returncode is not None

    async def remove(self) -> None:
        """Stop the server and delete its cluster; idempotent."""
        if self._process is not None:
            await _end(self._process, signal.SIGQUIT, signal.SIGKILL)
        await asyncio.to_thread(remove_cluster_dir, self._directory, self.cluster_dir)
        self._unmark()

    async def died(self) -> None:
        """Wait until the server has exited, for whatever reason."""
        if self._process is not None:
            await self._process.wait()

    def _unmark(self) -> None:
        for lock in self._held:
            lock.release()


def locales(major: int) -> list[list[str]]:
    """Return initdb's options for the locale of a version, best first.

    Text sorts by code point, and letters other than ASCII are letters. From 17 on the built-in locale sees to that for
    `upper`, `ilike` and regular expressions; before, and in extensions such as pg_trgm, a locale of the system does.
    """
    plain = ["--locale=C"] + (["--locale-provider=builtin", "--builtin-locale=C.UTF-8"] if major >= 17 else [])
    named = [[*plain, f"--lc-ctype={name}"] for name in ("C.UTF-8", "UTF-8", "en_US.UTF-8")]
    icu = [[*plain, "--locale-provider=icu", "--icu-locale=en-US-u-va-posix"]] if major < 17 else []
    return [*named, *icu, plain]


def lacks_space(error: BaseException) -> bool:
    """Return whether an error of the operating system or of Postgres means that the disk is full."""
    number = error.errno if isinstance(error, OSError) else None
    return number in (errno.ENOSPC, errno.EDQUOT) or getattr(error, "sqlstate", None) == "53100"


def _taken(cluster_dir: Path) -> Lock:
    """Lock a cluster outside of its data directory, of which there may be copies."""
    try:
        return Lock(cluster_dir / IN_USE)
    except BlockingIOError:
        message = f"another gateway runs on {cluster_dir}, the databases of a copy of this data directory: stop it"
        raise DirectoryInUse(message) from None


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
