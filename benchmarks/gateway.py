"""What the local gateway takes for a read: ``python -m benchmarks.gateway [--calls N] [--rounds N]``.

Compared is the CPU time of the server's process, 16 calls in flight, with that of a bare handler of aiohttp.web that
answers the same bytes without looking at the request, in the same run and in turn. Shown are medians, and durable
writes a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

import aiohttp

_IN_FLIGHT = 16
_BARE = """
import asyncio, sys
from aiohttp import web
async def main():
    body = sys.argv[1].encode()
    async def answer(request):
        return web.Response(body=body, content_type="application/json")
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def _started(stack: ExitStack, *command: str) -> tuple[int, str]:
    """Start a server, and return its process and the line that it prints."""
    process = stack.enter_context(subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True))
    stack.callback(process.terminate)
    assert process.stdout is not None
    return process.pid, process.stdout.readline()


def _cpu(pid: int) -> float:
    """Return the CPU time of a process, in seconds."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _calls(session: aiohttp.ClientSession, number: int, **request: Any) -> float:
    """Make calls, and return how long they took."""
    left = iter(range(number))

    async def work() -> None:
        for each in left:
            sent = request | {"json": {"key": f"f{each}"}} if request["method"] == "POST" else request
            async with session.request(**sent) as answer:
                await answer.read()
                answer.raise_for_status()

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    return time.perf_counter() - begun


async def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=3000, help="calls a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        gateway, line = _started(stack, "-m", "infrai_async", "local", "--data-dir", directory)
        ready = json.loads(line)
        headers = {"Authorization": f"Bearer {ready['api_key']}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            url = f"{ready['base_url']}/v1"
            async with session.post(f"{url}/db/project/create", json={"name": "shop"}) as answer:
                ident = (await answer.json())["data"]["id"]
            async with session.get(f"{url}/db/project/get/{ident}") as answer:
                body = await answer.text()
            bare, port = _started(stack, "-c", _BARE, body)
            ways = {
                "bare handler": (bare, f"http://127.0.0.1:{port.strip()}/v1/db/project/get/{ident}"),
                "db.project.get": (gateway, f"{url}/db/project/get/{ident}"),
                "account.balance": (gateway, f"{url}/account/balance"),
            }
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(given.rounds):
                for name, (pid, address) in ways.items():
                    before = _cpu(pid)
                    await _calls(session, given.calls, method="GET", url=address)
                    taken[name].append((_cpu(pid) - before) / given.calls)
            base = statistics.median(taken["bare handler"])
            for name, times in taken.items():
                found = statistics.median(times)
                print(f"{name:16} {found * 1e6:5.0f} us CPU {found / base:5.2f} of the bare handler's")
            seconds = await _calls(session, 1000, method="POST", url=f"{url}/flags/set")
            print(f"{'flags.set':16} {1000 / seconds:5.0f} durable writes a second")


if __name__ == "__main__":
    asyncio.run(main())
