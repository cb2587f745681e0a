"""A service with manners, in a process of its own: it is slow, pushes back or breaks things, and keeps count.

``python -m benchmarks.service MANNER OPTIONS`` (the options as JSON) prints its port and ends when its standard input
does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.request import urlopen

import attrs

from benchmarks import answers
from benchmarks.server import HOST, ended, message

if TYPE_CHECKING:
    from infrai_async import AsyncInfrai

LATENCY: Final = 0.005  # seconds from a request to its answer
_FIGURES: Final = b"/figures"
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is left, and says so


@attrs.frozen
class Service:
    """One that runs."""

    url: str

    def figures(self) -> dict[str, Any]:
        """Ask what it has counted, and the seconds of CPU time it has used."""
        with urlopen(self.url + _FIGURES.decode(), timeout=30) as response:
            return json.load(response)  # type: ignore[no-any-return]

    def client(self, **options: Any) -> AsyncInfrai:
        """Return a client of it."""
        from infrai_async import AsyncInfrai

        return AsyncInfrai(answers.API_KEY, base_url=self.url, **options)


@contextlib.contextmanager
def running(manner: str, **options: float) -> Iterator[Service]:
    """Run a service while the block runs."""
    command = [sys.executable, "-m", "benchmarks.service", manner, json.dumps(options)]
    with ended(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        port = process.stdout.readline()
        if not port:
            raise RuntimeError("the service did not start")
        yield Service(f"http://{HOST}:{int(port)}")


# --- manners ---


@attrs.frozen
class Asked:
    """One request."""

    method: bytes
    target: bytes
    head: bytes
    body: bytes

    @property
    def key(self) -> str:
        """Its idempotency key; what it asks for where it has none."""
        _, _, rest = self.head.lower().partition(b"\r\nidempotency-key: ")
        return (rest.partition(b"\r\n")[0] or self.target).decode()


@attrs.frozen
class Reply:
    """What is written; with ``cut`` only so many bytes of it, and the connection is closed, or reset where it is 0."""

    message: bytes
    cut: int | None = None


class Manner(Protocol):
    """How a service behaves."""

    def answer(self, asked: Asked) -> Reply | None:
        """Answer one request, or never."""

    def figures(self) -> dict[str, Any]:
        """Return what it has counted, as plain JSON types."""


class Listing:
    """A thousand projects, and ten pages of branches for each; how long a page is, the request says."""

    def __init__(self) -> None:
        self._projects = {cursor.encode(): _ok(body) for cursor, body in answers.by_cursor().items()}
        self._branches = {
            b"%d" % per_page: {cursor.encode(): _ok(body) for cursor, body in answers.branches(per_page).items()}
            for per_page in answers.PER_PAGES
        }
        self._given = 0

    def answer(self, asked: Asked) -> Reply:
        path, _, query = asked.target.partition(b"?")
        given = dict(pair.split(b"=") for pair in query.split(b"&"))
        cursor = given.get(b"cursor", b"")
        if path == answers.LIST.encode():
            return self._projects[cursor]
        self._given += int(given[b"limit"])
        page = self._branches[given[b"limit"]][cursor]
        return Reply(page.message.replace(answers.ANY_PROJECT.encode(), given[b"project_id"]))

    def figures(self) -> dict[str, Any]:
        return {"branches": self._given}


class Silent:
    """Answers the first request, and whoever asks after that waits for ever."""

    def __init__(self) -> None:
        self._asked = 0

    def answer(self, asked: Asked) -> Reply | None:
        self._asked += 1
        return _project(asked) if self._asked == 1 else None

    def figures(self) -> dict[str, Any]:
        return {"waiting": max(0, self._asked - 1)}


class _PushingBack:
    """Remembers when it answered what, in seconds since the first request."""

    def __init__(self, retry_after: float) -> None:
        fields = b"Retry-After: %g\r\n" % retry_after
        self._refusal = Reply(message(b"429 Too Many Requests", answers.refusal("RATE_LIMITED"), fields))
        self._began: float | None = None
        self._log: list[tuple[float, int, str]] = []

    def answer(self, asked: Asked) -> Reply:
        now = time.monotonic()
        if self._began is None:
            self._began = now
        delivers = self._delivers(now - self._began)
        self._log.append((now - self._began, 200 if delivers else 429, asked.key))
        return _project(asked) if delivers else self._refusal

    def _delivers(self, now: float) -> bool:
        raise NotImplementedError

    def figures(self) -> dict[str, Any]:
        return {"log": self._log}


class Outage(_PushingBack):
    """Refuses everything for the first ``seconds``."""

    def __init__(self, seconds: float, retry_after: float) -> None:
        super().__init__(retry_after)
        self._seconds = seconds

    def _delivers(self, now: float) -> bool:
        return now >= self._seconds


class Bucket(_PushingBack):
    """Allows ``rate`` calls a second and ``burst`` at once, and refuses the rest."""

    def __init__(self, rate: float, burst: float, retry_after: float) -> None:
        super().__init__(retry_after)
        self._rate, self._burst = rate, burst
        self._tokens, self._filled = burst, 0.0

    def _delivers(self, now: float) -> bool:
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Chaos:
    """Spoils a part of its answers, each kind as often: resets, 503, bodies cut short; about half after the effect.

    No call is struck more than ``MOST`` times, because one that always fails fails rightly.
    """

    MOST: Final = 3

    def __init__(self, each: float) -> None:
        self._each = each
        self._random = random.Random(13)
        self._strikes: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._made: dict[str, Reply] = {}  # by idempotency key
        self._names: Counter[str] = Counter()  # how often each was made
        self._replayed = 0

    def answer(self, asked: Asked) -> Reply:
        fault = self._fault(asked.key)
        if fault is None:
            return self._do(asked)
        applied = fault == "truncated" or self._random.random() < 0.5
        self._faults[f"{fault}, {'after' if applied else 'before'} the effect"] += 1
        reply = self._do(asked) if applied else _UNAVAILABLE
        if fault == "503":
            return _UNAVAILABLE
        return Reply(reply.message, cut=0 if fault == "reset" else len(reply.message) - 20)

    def _fault(self, key: str) -> str | None:
        chance = self._random.random()
        if chance >= 3 * self._each or self._strikes[key] >= self.MOST:
            return None
        self._strikes[key] += 1
        return ("reset", "503", "truncated")[int(chance / self._each)]

    def _do(self, asked: Asked) -> Reply:
        if asked.method == b"GET":
            return _project(asked)
        self._replayed += asked.key in self._made
        if asked.key not in self._made:
            name = json.loads(asked.body)["name"]
            self._names[name] += 1
            self._made[asked.key] = _ok(answers.project(len(self._made), name=name))
        return self._made[asked.key]

    def figures(self) -> dict[str, Any]:
        twice = sum(count - 1 for count in self._names.values())
        return {"faults": self._faults, "made": len(self._names), "twice": twice, "replayed": self._replayed}


def _ok(body: bytes) -> Reply:
    return Reply(message(b"200 OK", body))


_ANY: Final = _ok(answers.project(0))
_UNAVAILABLE: Final = Reply(message(b"503 Service Unavailable", answers.refusal("INTERNAL_ERROR")))


def _project(asked: Asked) -> Reply:
    """Answer ``db.project.get`` with the project that was asked for."""
    wanted = asked.target.rpartition(b"/")[2]
    return Reply(_ANY.message.replace(answers.ANY_PROJECT.encode(), wanted))


MANNERS: Final = {"listing": Listing, "silent": Silent, "outage": Outage, "bucket": Bucket, "chaos": Chaos}


# --- HTTP ---


class Connection(asyncio.Protocol):
    """Reads requests, one after another, and answers each a moment later."""

    def __init__(self, manner: Manner, latency: float) -> None:
        self._manner, self._latency = manner, latency
        self._loop = asyncio.get_running_loop()
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (asked := self._next()) is not None:
            if asked.target == _FIGURES:
                figures = self._manner.figures() | {"cpu": time.process_time()}
                self._write(_ok(json.dumps(figures).encode()))
            elif (reply := self._manner.answer(asked)) is not None:
                self._loop.call_later(self._latency, self._write, reply)

    def _next(self) -> Asked | None:
        head, found, rest = self._rest.partition(b"\r\n\r\n")
        if not found:
            return None
        method, target, _ = head.split(b" ", 2)
        length = 0
        if method != b"GET":
            _, _, after = head.lower().partition(b"\r\ncontent-length: ")
            length = int(after.partition(b"\r\n")[0])
        if len(rest) < length:
            return None
        self._rest = rest[length:]
        return Asked(method, target, head, rest[:length])

    def _write(self, reply: Reply) -> None:
        if reply.cut == 0:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
            return
        self._transport.write(reply.message[: reply.cut])
        if reply.cut is not None:
            self._transport.close()


async def _serve(manner: Manner, latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(manner, latency), HOST, 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)  # until whoever started us closes it, or is gone


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manner", choices=tuple(MANNERS))
    parser.add_argument("options", type=json.loads)
    arguments = parser.parse_args()
    seconds = arguments.options.pop("latency", LATENCY)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(MANNERS[arguments.manner](**arguments.options), seconds))
