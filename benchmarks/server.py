"""A server of fixed answers in a process of its own: nginx where there is one, else a few lines of asyncio.

``python -m benchmarks.server`` is the second kind; it prints its ports and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from benchmarks import answers

HOST: Final = "127.0.0.1"
_PATIENCE: Final = 10.0  # seconds until a server has to be up


@attrs.frozen
class Certificate:
    """Where the files of a throw-away authority are."""

    authority: Path
    server: Path  # certificate chain and private key


@attrs.frozen
class Server:
    """A server that runs; ``https`` is ``None`` without a certificate."""

    kind: str
    http: str
    https: str | None


def make_certificate(directory: Path) -> Certificate | None:
    """Write a certificate for loopback; ``None`` where trustme is not installed."""
    try:
        import trustme
    except ImportError:
        return None
    authority = trustme.CA()
    certificate = Certificate(directory / "authority.pem", directory / "server.pem")
    authority.cert_pem.write_to_path(certificate.authority)
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(certificate.server)
    return certificate


@contextlib.contextmanager
def running(directory: Path, certificate: Certificate | None, *, nginx: bool = True) -> Iterator[Server]:
    """Run a server while the block runs."""
    program = shutil.which("nginx") if nginx else None
    with _nginx(program, directory, certificate) if program else _asyncio(certificate) as server:
        yield server


# --- nginx ---

_NGINX: Final = """\
daemon off; master_process off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
    access_log off; etag off; default_type application/json; open_file_cache max=100;
    keepalive_requests 100000000; keepalive_timeout 600s; tcp_nodelay on; server_tokens off;
    client_body_temp_path {directory}; proxy_temp_path {directory}; fastcgi_temp_path {directory};
    uwsgi_temp_path {directory}; scgi_temp_path {directory};
    server {{
        listen {host}:{http};
        {tls}
        root {directory};
        location ^~ {get} {{ rewrite ^ /one break; }}
        location = {list} {{ rewrite ^ /page-$arg_cursor break; }}
        location / {{ return 404; }}
    }}
}}
"""


@contextlib.contextmanager
def _nginx(program: str, directory: Path, certificate: Certificate | None) -> Iterator[Server]:
    (directory / "one").write_bytes(answers.one())
    for cursor, body in answers.by_cursor().items():
        (directory / f"page-{cursor}").write_bytes(body)
    http, https = _free_ports()
    tls = ""
    if certificate is not None:
        tls = f"listen {HOST}:{https} ssl; ssl_certificate {certificate.server}; "
        tls += f"ssl_certificate_key {certificate.server};"
    text = _NGINX.format(directory=directory, host=HOST, http=http, tls=tls, get=answers.GET, list=answers.LIST)
    settings = directory / "nginx.conf"
    settings.write_text(text)
    command = [program, "-p", str(directory), "-e", str(directory / "error.log"), "-c", str(settings)]
    with ended(subprocess.Popen(command, stderr=subprocess.DEVNULL)) as process:
        pin(process, 0)
        _await_port(process, http)
        yield _server("nginx", http, https if certificate else None)


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        return one.getsockname()[1], other.getsockname()[1]


def _await_port(process: subprocess.Popen[bytes], port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1.0):
            return
        time.sleep(0.02)
    raise RuntimeError("nginx did not start; --no-nginx does without it")


# --- asyncio ---


@contextlib.contextmanager
def _asyncio(certificate: Certificate | None) -> Iterator[Server]:
    command = [sys.executable, "-m", "benchmarks.server", *([str(certificate.server)] if certificate else [])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with ended(process):
        pin(process, 0)
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline() or b"{}")
        if not ports:
            raise RuntimeError("the server did not start")
        yield _server("asyncio", ports["http"], ports["https"])


def pin(process: subprocess.Popen[Any], which: int) -> None:
    """Keep a process on one processor, where the system can and there are several.

    A contender that shares the server's takes a quarter less CPU time than one beside it, and where each comes to lie
    depends on the order of their starts.
    """
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        if len(processors) > 1:
            os.sched_setaffinity(process.pid, {processors[which]})


@contextlib.contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """End a process after the block, however that ends."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def _server(kind: str, http: int, https: int | None) -> Server:
    return Server(kind, f"http://{HOST}:{http}", None if https is None else f"https://{HOST}:{https}")


def _answers() -> dict[bytes, bytes]:
    bodies = {answers.GET: answers.one()}
    for cursor, body in answers.by_cursor().items():
        bodies[answers.page_path(cursor)] = body
    return {target.encode(): message(b"200 OK", body) for target, body in bodies.items()}


def message(status: bytes, body: bytes, fields: bytes = b"") -> bytes:
    """Return an answer as it goes over the wire; each of ``fields`` ends its line."""
    fields += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return b"HTTP/1.1 %b\r\nServer: benchmark\r\nDate: Sun, 01 Mar 2026 08:00:00 GMT\r\n%b\r\n%b" % (
        status,
        fields,
        body,
    )


_GET: Final = answers.GET.encode()


class _Connection(asyncio.Protocol):
    """Answers GET requests, which end with their head; the connection stays open."""

    def __init__(self, by_target: dict[bytes, bytes]) -> None:
        self._by_target = by_target
        self._missing = message(b"404 Not Found", b"{}")
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._rest = (self._rest + data).split(b"\r\n\r\n")
        for head in heads:
            target = head.split(b" ", 2)[1]
            if target.startswith(_GET):
                target = _GET
            if self._transport is not None:
                self._transport.write(self._by_target.get(target, self._missing))


async def _serve(chain: str | None) -> None:
    loop = asyncio.get_running_loop()
    by_target = _answers()
    contexts: list[ssl.SSLContext | None] = [None]
    if chain is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain)
        contexts.append(context)
    servers = [await loop.create_server(lambda: _Connection(by_target), HOST, 0, ssl=context) for context in contexts]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    print(json.dumps({"http": ports[0], "https": ports[1] if chain else None}), flush=True)
    await loop.run_in_executor(None, sys.stdin.buffer.read)  # until whoever started us closes it, or is gone


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chain", nargs="?", help="a PEM file of certificate and key, to serve TLS as well")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(parser.parse_args().chain))
