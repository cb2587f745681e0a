"""``with LocalGateway()``: the gateway in a thread of its own, for code that blocks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from infrai_async import AsyncInfrai, Infrai, RateLimitError, RetryPolicy, ServerError
from infrai_async.local import DirectoryInUse, LocalGateway
from infrai_async.local.postgres.binaries import PostgresUnavailable
from infrai_async.local.postgres.data_dirs import cluster_dir_of

LONG = 120.0
HEAD = "import sys, time\nfrom infrai_async import Infrai\nfrom infrai_async.local import LocalGateway\n"


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_blocking_code_starts_it_uses_it_and_ends_it(tmp_path: Path) -> None:
    gateway = LocalGateway(tmp_path)
    with gateway as entered, Infrai(gateway.api_key, base_url=gateway.base_url) as client:
        assert entered is gateway
        assert client.db.project.create(name="shop").connection_uri
        assert [project.name for project in client.db.project.list()] == ["shop"]
        key = gateway.api_key
    assert "infrai-gateway" not in names()
    assert server_of(tmp_path) is None
    with pytest.raises(RuntimeError, match="use it in 'with' or 'async with'"):
        _ = gateway.base_url
    with gateway:  # once more
        assert gateway.api_key == key


def test_faults_and_limits_are_set_from_any_thread() -> None:
    def balance() -> None:
        with Infrai(gateway.api_key, base_url=gateway.base_url, retry=RetryPolicy.none()) as client:
            client.account.balance()

    with LocalGateway() as gateway:
        gateway.faults.add("account.*", status=503, count=1)
        with pytest.raises(ServerError):
            balance()
        gateway.limit(rate=0.001, burst=1)
        balance()
        with pytest.raises(RateLimitError):
            balance()
        other = threading.Thread(target=gateway.limit, args=(None,))
        other.start()
        other.join()
        balance()


def test_it_runs_beside_an_event_loop_too() -> None:
    async def main() -> str:
        with LocalGateway() as gateway:
            with Infrai(gateway.api_key, base_url=gateway.base_url) as client:  # its own loop could not answer
                client.account.balance()
            async with AsyncInfrai(gateway.api_key, base_url=gateway.base_url) as client:
                return (await client.account.balance()).currency

    assert asyncio.run(main()) == "USD"


def test_one_object_is_used_in_one_way_at_a_time() -> None:
    async def inside(gateway: LocalGateway) -> None:
        with pytest.raises(RuntimeError, match="already running"):
            await gateway.start()
        with pytest.raises(RuntimeError, match="leave its 'with' block"):
            await gateway.aclose()

    async def outside(gateway: LocalGateway) -> None:
        async with gateway:
            with pytest.raises(RuntimeError, match="already running"):
                gateway.__enter__()

    gateway = LocalGateway()
    with gateway:
        with pytest.raises(RuntimeError, match="already running"):
            gateway.__enter__()
        asyncio.run(inside(gateway))
        assert gateway.base_url
    asyncio.run(outside(gateway))
    with gateway:
        assert gateway.base_url


def test_what_prevents_the_start_is_raised_and_leaves_nothing(tmp_path: Path) -> None:
    with LocalGateway(tmp_path) as first:
        second = LocalGateway(tmp_path)
        with pytest.raises(DirectoryInUse):
            second.__enter__()
        port = int(first.base_url.rpartition(":")[2])
        with pytest.raises(OSError, match="cannot listen on port"):
            LocalGateway(port=port).__enter__()
    with second:
        assert second.api_key


def program(text: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", HEAD + text], stdout=pipe, stderr=pipe, text=True)


def server_of(directory: Path) -> int | None:
    """Return the process of its Postgres; it has none any more once it has been stopped."""
    try:
        pid = int((cluster_dir_of(directory / "postgres") / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ProcessLookupError, IndexError, PostgresUnavailable):
        return None  # the last one if it was ended before there was a place for a cluster
    return pid


USED = """\
    Infrai(gateway.api_key, base_url=gateway.base_url).db.project.create(name='shop')
    print('up', flush=True)
"""


def test_ctrl_c_ends_it_with_its_postgres(tmp_path: Path) -> None:
    with program(f"with LocalGateway({str(tmp_path)!r}) as gateway:\n{USED}    time.sleep(300)\n") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        assert server_of(tmp_path)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=LONG)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert server_of(tmp_path) is None


def test_ctrl_c_during_the_start_leaves_nothing(tmp_path: Path) -> None:
    begun = f"print('up', flush=True)\nwith LocalGateway({str(tmp_path)!r}) as gateway:\n    time.sleep(300)\n"
    with program(begun) as running:
        assert running.stdout is not None
        running.stdout.readline()
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=LONG)
    assert "KeyboardInterrupt" in errors
    assert server_of(tmp_path) is None


@pytest.mark.parametrize("end", ["", "sys.exit(3)\n", "raise ValueError\n"], ids=["normally", "by exit", "by an error"])
def test_a_program_that_never_leaves_the_block_ends_it(tmp_path: Path, end: str) -> None:
    text = f"gateway = LocalGateway({str(tmp_path)!r}).__enter__()\nif True:\n{USED}{end}"
    with program(text) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        assert server_of(tmp_path)
        _, errors = running.communicate(timeout=LONG)
    assert server_of(tmp_path) is None
    assert running.returncode == {"": 0, "sys.exit(3)\n": 3}.get(end, 1)
    assert errors == "" or "ValueError" in errors.splitlines()[-1]


def test_a_child_process_leaves_it_to_the_parent() -> None:
    with LocalGateway() as gateway:
        if (child := os.fork()) == 0:
            code = 1
            try:
                gateway.__exit__(None, None, None)
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        with Infrai(gateway.api_key, base_url=gateway.base_url) as client:
            client.account.balance()
