"""A hand-written HTTP/1.1 server in a thread of its own: it records each request raw, and can misbehave on demand.

No HTTP library of ours or aiohttp's stands between the wire and what the tests see.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import attrs

SMALL = {"id": "p1", "name": "shop", "connection_uri": "postgresql://u:secret@127.0.0.1:5432/d"}


@attrs.frozen
class Seen:
    """One request as it arrived; ``target`` is the raw path with its query, ``connection`` counts from 1."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.frozen(kw_only=True)
class Reply:
    """What to answer.

    ``cut`` sends only so many bytes of the body, ``drop`` closes without a word, ``raw`` is sent as it is instead of
    a response, ``stray`` is sent unasked in segments of its own after it, and ``reset`` then resets the connection.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    delay: float = 0.0
    cut: int | None = None
    drop: bool = False
    close: bool = False
    raw: bytes | None = None
    stray: tuple[bytes, ...] = ()
    reset: bool = False


def answer(data: object, *, status: int = 200, headers: Mapping[str, str] | None = None, **kwargs: Any) -> Reply:
    """A successful envelope around ``data``."""
    envelope = {"ok": True, "data": data, "error": None, "metadata": {"cost_usd": 0.001, "request_id": "r-1"}}
    return Reply(status=status, body=json.dumps(envelope).encode(), headers=headers or {}, **kwargs)


def refuse(status: int, code: str = "SOME_CODE", *, headers: Mapping[str, str] | None = None, **error: Any) -> Reply:
    """A refusal in an envelope."""
    body = {"ok": False, "data": None, "error": {"code": code, "message": "no"} | error, "metadata": {}}
    return Reply(status=status, body=json.dumps(body).encode(), headers=headers or {})


def in_turn(*replies: Reply) -> Callable[[Seen], Reply]:
    """Answer with one reply after the other, the last one for ever."""
    left: Iterator[Reply] = iter(replies)
    return lambda seen: next(left, replies[-1])


class Oracle:
    """The server; ``reply`` maps a request to its answer and runs in the server's thread."""

    def __init__(self, reply: Callable[[Seen], Reply], *, tls: ssl.SSLContext | None = None) -> None:
        self.reply = reply
        self.seen: list[Seen] = []
        self.open_now = 0
        self.most_at_once = 0
        self.connections = 0
        self.stray_sent = 0  # segments
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # a refused handshake is what a test wanted
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="oracle")

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(60)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if self._tls else 'http'}://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)

    async def _stop(self) -> None:
        # A server that is closed while a connection is on its way from the socket to its handler forgets it, unclosed.
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(5):
            await asyncio.sleep(0)
        self._server.close()
        for _ in range(3):
            await asyncio.sleep(0)  # a connection that was accepted just now gets its transport, which can be closed
        for writer in tuple(self._writers):
            writer.transport.abort()
        mine = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not mine]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        try:
            while (seen := await _read(reader, number)) is not None:
                self.seen.append(seen)
                self.open_now += 1
                self.most_at_once = max(self.most_at_once, self.open_now)
                try:
                    going_on = await self._answer(self.reply(seen), writer)
                finally:
                    self.open_now -= 1
                if not going_on:
                    break
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the stream's own callback complains of a cancelled handler
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.drop:
            writer.transport.abort()
            return False
        headers = {"Content-Type": "application/json", "Content-Length": str(len(reply.body)), **reply.headers}
        if reply.close:
            headers["Connection"] = "close"
        head = f"HTTP/1.1 {reply.status} Whatever\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        body = reply.body if reply.cut is None else reply.body[: reply.cut]
        writer.write(reply.raw if reply.raw is not None else head.encode() + body)
        await writer.drain()
        for segment in reply.stray:
            await asyncio.sleep(0.02)
            writer.write(segment)
            await writer.drain()
            self.stray_sent += 1
        if reply.reset:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        return reply.cut is None and not reply.close


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen | None:
    line = await reader.readline()
    if not line:
        return None
    method, target, _ = line.decode("latin-1").split(" ")
    headers = {}
    while (raw := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = raw.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Seen(method, target, headers, body, connection)
