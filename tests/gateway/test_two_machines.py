"""A gateway on one machine and a client on another, which network namespaces are to each other."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LONG = 120.0
ADDRESS = "10.77.0.1"
PUBLIC = f"http://{ADDRESS}:8000"
ORIGIN = "import http.server as s; s.test(s.SimpleHTTPRequestHandler, port=9000, bind='127.0.0.1')"
CLIENT = f"""
import asyncio, sys
import aiohttp, asyncpg
from infrai_async import AsyncInfrai

async def main():
    options = dict(base_url={PUBLIC!r}, allow_http=True)
    async with AsyncInfrai(sys.argv[1], **options) as client, aiohttp.ClientSession() as http:
        project = await client.db.project.create(name="shop")
        connection = await asyncpg.connect(project.connection_uri, ssl=False)
        await connection.execute("create table t as select 7 as x")
        branch = await client.db.branch.create(project_id=project.id, branch_name="b")
        copy = await asyncpg.connect(branch.connection_uri, ssl=False)
        print(await copy.fetchval("select x from t"))
        await client.storage.bucket.create(bucket="b")
        for method in ("PUT", "GET"):
            presigned = await client.storage.object.presign(bucket="b", key="k", method=method)
            async with http.request(method, presigned.url, data=b"bytes" if method == "PUT" else None) as response:
                print(response.status, (await response.read()).decode())
        distribution = await client.cdn.distribution.create(origin="http://127.0.0.1:9000")
        async with http.get(distribution.edge_url + "/page.txt") as response:
            print(response.status, (await response.text()).strip())
        async with http.get((await client.account.topup(amount_usd=1)).checkout_url) as response:
            print(response.status)

asyncio.run(main())
"""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=LONG)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them."""
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces want root and iproute2; two addresses of loopback stand for them elsewhere")
    mark = secrets.token_hex(3)
    names = f"a{mark}", f"b{mark}"
    try:
        try:
            for name in names:
                run("ip", "netns", "add", name)
            run("ip", "link", "add", names[0], "netns", names[0], "type", "veth", "peer", names[1], "netns", names[1])
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
        for number, name in enumerate(names, 1):
            run("ip", "-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", name)
            for device in (name, "lo"):
                run("ip", "-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=LONG)


def started(machine: str, *command: str, directory: Path) -> subprocess.Popen[str]:
    inside = ["ip", "netns", "exec", machine, sys.executable, *command]
    return subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=directory)


def test_a_client_on_another_machine_uses_all_of_it(machines: tuple[str, str], tmp_path: Path) -> None:
    here, there = machines
    (tmp_path / "page.txt").write_text("a page")
    options = ["--data-dir", str(tmp_path / "data"), "--host", "0.0.0.0", "--port", "8000", "--public-url", PUBLIC]
    origin = started(here, "-c", ORIGIN, directory=tmp_path)
    gateway = started(here, "-m", "infrai_async", "local", *options, directory=tmp_path)
    try:
        assert gateway.stdout is not None
        key = json.loads(gateway.stdout.readline())["api_key"]
        client = started(there, "-c", CLIENT, key, directory=tmp_path)
        said, _ = client.communicate(timeout=LONG)
        assert said.splitlines() == ["7", "200 ", "200 bytes", "200 a page", "200"]
    finally:
        for process in (origin, gateway):
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=LONG)
