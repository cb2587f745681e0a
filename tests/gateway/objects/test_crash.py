"""Objects of a gateway in a process of its own: killed at any moment, and however large, in little memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

pytestmark = pytest.mark.anyio
ROUNDS = 12
KEYS = 8
MIB = 2**20

_SERVE = """
import asyncio, json, sys
from infrai_async.local import LocalGateway
async def main():
    async with LocalGateway(sys.argv[1], postgres_bin=sys.argv[1] + "/no-postgres-here", credit="1000") as gateway:
        print(json.dumps([gateway.base_url, gateway.api_key]), flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@dataclass
class Served:
    """A gateway that runs, and one bucket in it."""

    base_url: str
    api_key: str
    pid: int
    session: aiohttp.ClientSession

    async def url(self, method: str, key: str) -> URL:
        async with self.session.post(
            f"{self.base_url}/v1/storage/buckets/b/objects/{key}/presign",
            json={"method": method},
            headers={"Authorization": f"Bearer {self.api_key}"},
        ) as answer:
            return URL((await answer.json())["data"]["url"], encoded=True)

    async def put(self, key: str, data: Any) -> None:
        async with self.session.put(await self.url("PUT", key), data=data) as answer:
            assert answer.status == 200

    async def get(self, key: str) -> tuple[str | None, bytes]:
        async with self.session.get(await self.url("GET", key)) as answer:
            body = await answer.read()
            assert answer.status == 404 or answer.headers["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
            return (None, b"") if answer.status == 404 else (answer.headers["ETag"], body)

    def peak(self) -> int:
        """Return the most memory that the process ever had, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))) * 1024


@asynccontextmanager
async def killed(data_dir: Path) -> AsyncIterator[Served]:
    """A gateway that is killed without warning at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVE, str(data_dir), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        base_url, api_key = json.loads(await process.stdout.readline())
        async with aiohttp.ClientSession() as session:
            served = Served(base_url, api_key, process.pid, session)
            headers = {"Authorization": f"Bearer {api_key}"}
            async with session.post(f"{base_url}/v1/storage/buckets", json={"bucket": "b"}, headers=headers) as answer:
                assert answer.status in (200, 409)
            yield served
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def content(key: str, version: int) -> bytes:
    return f"{key} {version};".encode() * (1 + version * 7919 % 30_000)


def version_of(key: str, data: bytes) -> int:
    """Return which content this is, once it is clear that it is one."""
    version = int(data.partition(b";")[0].split()[1])
    assert data == content(key, version)
    return version


async def test_after_kill_9_what_was_acknowledged_is_there_whole_and_no_file_is_anybodys(tmp_path: Path) -> None:
    begun, acknowledged = dict.fromkeys(map(str, range(KEYS)), 0), dict.fromkeys(map(str, range(KEYS)), 0)

    async def write(served: Served, key: str) -> None:
        while True:
            begun[key] += 1
            await served.put(key, content(key, begun[key]))
            acknowledged[key] = begun[key]

    async def check(served: Served) -> None:
        there = {key: (await served.get(key))[1] for key in begun}
        for key, data in there.items():
            assert acknowledged[key] <= (version_of(key, data) if data else 0) <= begun[key]
        files = list((tmp_path / "objects").iterdir())
        assert sorted(path.stat().st_size for path in files) == sorted(len(data) for data in there.values() if data)

    for _ in range(ROUNDS):
        async with killed(tmp_path) as served:
            await asyncio.sleep(0.1)  # what the last one had given up is deleted soon after the start
            await check(served)
            writing = [asyncio.create_task(write(served, key)) for key in begun]
            await asyncio.sleep(random.uniform(0.05, 0.4))
            os.kill(served.pid, signal.SIGKILL)
            ends = await asyncio.gather(*writing, return_exceptions=True)
            assert not [end for end in ends if not isinstance(end, aiohttp.ClientError)]
    assert sum(acknowledged.values()) > ROUNDS
    async with killed(tmp_path) as served:
        await asyncio.sleep(0.1)
        await check(served)


@pytest.mark.parametrize("sent", [1, 3 * MIB])
async def test_killed_in_the_middle_of_an_upload_the_old_object_stays_alone(tmp_path: Path, sent: int) -> None:
    async with killed(tmp_path) as served:
        await served.put("k", b"old")
        put = await served.url("PUT", "k")
        arrived = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield b"x" * sent
            arrived.set()
            await asyncio.Event().wait()

        uploading = asyncio.create_task(served.session.put(put, data=body()).__aenter__())
        await arrived.wait()
        while sum(path.stat().st_size for path in (tmp_path / "objects").glob("*.part")) < sent:
            await asyncio.sleep(0.01)
        os.kill(served.pid, signal.SIGKILL)
        await asyncio.wait({uploading})
        assert uploading.exception() is not None
    assert len(list((tmp_path / "objects").iterdir())) == 2
    async with killed(tmp_path) as served:
        assert [path.suffix for path in (tmp_path / "objects").iterdir()] == [""]
        assert (await served.get("k"))[1] == b"old"


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of another process is read from /proc")
async def test_large_bodies_take_little_memory(tmp_path: Path) -> None:
    piece = random.randbytes(MIB)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield piece

    async def read(served: Served) -> int:
        async with served.session.get(await served.url("GET", "k")) as answer:
            received = 0
            while chunk := await answer.content.readany():
                received += len(chunk)
                if received < 2 * MIB:
                    await asyncio.sleep(0.05)  # a slow reader fills no buffer but its own
            return received

    async with killed(tmp_path) as served:
        await served.put("warm", piece)
        await served.get("warm")
        before = served.peak()
        await asyncio.gather(*(served.put("k", body()) for _ in range(3)))
        assert await asyncio.gather(*(read(served) for _ in range(3))) == [64 * MIB] * 3
        assert served.peak() - before < 24 * MIB
