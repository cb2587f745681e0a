"""TLS: authorities from the environment whenever they are set, and errors that say what is wrong and what to do."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from support.oracle import SMALL, Oracle, answer

from infrai_async import AsyncInfrai, ConfigurationError, ConnectError, InfraiError, RetryPolicy
from infrai_async._transport.tls import as_tls_error, tls_context

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pem(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def server_context(authority: trustme.CA, *names: str, expired: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC) if expired else None
    authority.issue_cert(*(names or ("localhost",)), not_after=past).configure_cert(context)
    return context


async def error_at(url: str, **options: object) -> InfraiError:
    async with AsyncInfrai("k", base_url=url, timeout=20, **options) as client:  # type: ignore[arg-type]
        with pytest.raises(InfraiError) as caught:
            await client.db.project.get("p")
    return caught.value


# --- authorities from the environment ----------------------------------------------------------------------------

PROGRAM = """
import os, sys
from infrai_async import Infrai
{before}
with Infrai("k", base_url=sys.argv[1], timeout=20) as client:
    os.environ[sys.argv[2]] = sys.argv[3]
    print(client.db.project.get("p").id)
"""


@pytest.mark.parametrize("before", ["", "import aiohttp", "Infrai('k').close()"], ids=["import", "aiohttp", "client"])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_authorities_named_after_the_import_count(
    authority: trustme.CA, pem: str, tmp_path: Path, before: str, variable: str
) -> None:
    place = pem
    if variable == "SSL_CERT_DIR":  # OpenSSL looks for a certificate by a hash of its subject
        hashed = ["openssl", "x509", "-noout", "-subject_hash", "-in", pem]
        try:
            name = subprocess.run(hashed, capture_output=True, text=True, check=True).stdout.strip()
        except OSError:  # pragma: no cover - where there is no such command
            pytest.skip("the command openssl is not there")
        (tmp_path / f"{name}.0").symlink_to(pem)
        place = str(tmp_path)
    with Oracle(lambda seen: answer(SMALL), tls=server_context(authority)) as oracle:
        command = [sys.executable, "-c", PROGRAM.format(before=before), oracle.url, variable, place]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.stderr) == ("p1\n", "")


async def test_authorities_that_are_no_longer_named_are_no_longer_trusted(
    authority: trustme.CA, pem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Oracle(lambda seen: answer(SMALL), tls=server_context(authority)) as oracle:
        monkeypatch.setenv("SSL_CERT_FILE", pem)
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            await client.db.project.get("p")
        monkeypatch.delenv("SSL_CERT_FILE")
        assert isinstance(await error_at(oracle.url), ConnectError)


async def test_a_file_of_authorities_that_appears_later_is_read(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "later.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with Oracle(lambda seen: answer(SMALL), tls=server_context(authority)) as oracle:
        assert f"SSL_CERT_FILE names {file}, which cannot be read (No such file" in str(await error_at(oracle.url))
        authority.cert_pem.write_to_path(file)
        async with AsyncInfrai("k", base_url=oracle.url) as client:
            await client.db.project.get("p")


OWN_CONTEXT = """
{before}
from infrai_async import AsyncInfrai
from infrai_async._transport.tls import tls_context
print(tls_context("https://api.test", None) is not None)
"""


@pytest.mark.parametrize(
    ("before", "given", "made"),
    [
        ("", {}, "False"),
        ("import aiohttp", {}, "False"),
        ("", {"SSL_CERT_FILE": __file__}, "False"),
        ("import aiohttp", {"SSL_CERT_FILE": __file__}, "True"),  # which may have been set after that import
        ("import infrai_async, aiohttp", {"SSL_CERT_FILE": __file__}, "True"),
    ],
    ids=["none", "aiohttp first", "set", "set, aiohttp first", "set, aiohttp between"],
)
def test_aiohttps_own_context_serves_where_it_has_the_same_authorities(
    before: str, given: dict[str, str], made: str
) -> None:
    command = [sys.executable, "-c", OWN_CONTEXT.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env={**os.environ, **given})
    assert (done.stdout, done.stderr) == (f"{made}\n", "")


def test_the_context_is_shared_and_made_only_where_it_is_needed(pem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ssl.create_default_context()
    monkeypatch.setenv("SSL_CERT_FILE", pem)
    first = tls_context("https://api.test", None)
    assert first is not None
    assert tls_context("https://other.test", None) is first
    assert tls_context("http://api.test", None) is None
    assert tls_context("https://api.test", mine) is mine


# --- errors ------------------------------------------------------------------------------------------------------


def in_a_file(content: str) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / "given").write_text(content)
        return str(folder / "given")

    return make


@pytest.mark.parametrize(
    ("variable", "value", "fault"),
    [
        ("SSL_CERT_FILE", in_a_file("no certificate"), "which contains no certificates in PEM format"),
        ("SSL_CERT_FILE", in_a_file(""), "which contains no certificates in PEM format"),
        ("SSL_CERT_FILE", str, "which cannot be read (Is a directory)"),
        ("SSL_CERT_FILE", lambda folder: f"{folder}/missing", "which cannot be read (No such file or directory)"),
        ("SSL_CERT_DIR", lambda folder: f"{folder}/missing", "which is not a directory"),
    ],
)
async def test_a_variable_that_adds_no_authority_is_told(
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: Callable[[Path], str],
    fault: str,
) -> None:
    monkeypatch.setenv(variable, value(tmp_path))
    with Oracle(lambda seen: answer(SMALL), tls=server_context(authority)) as oracle:
        assert str(await error_at(oracle.url)).endswith(f". {variable} names {value(tmp_path)}, {fault}")


async def test_an_unknown_authority_is_told_with_what_to_do_and_tried_once(authority: trustme.CA) -> None:
    with Oracle(lambda seen: answer(SMALL), tls=server_context(authority)) as oracle:
        error = await error_at(oracle.url)
    assert isinstance(error, ConnectError)
    assert (error.outcome, len(error.attempts)) == ("not_sent", 1)
    for part in (oracle.url.removeprefix("https://"), "issuer", "ssl=", "SSL_CERT_FILE"):
        assert part in str(error)


@pytest.mark.parametrize(
    ("names", "expired", "parts"),
    [
        (("other.test",), False, ["localhost", "base_url", "ssl="]),
        (("localhost",), True, ["expired", "clock", "ssl="]),
    ],
    ids=["another host", "expired"],
)
async def test_a_certificate_that_is_not_valid_is_told_from_one_that_is_unknown(
    authority: trustme.CA, names: tuple[str, ...], expired: bool, parts: list[str]
) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with Oracle(lambda seen: answer(SMALL), tls=server_context(authority, *names, expired=expired)) as oracle:
        error = await error_at(oracle.url, ssl=trusting)
    assert len(error.attempts) == 1
    for part in parts:
        assert part in str(error)
    assert "SSL_CERT_FILE" not in str(error)


async def test_https_to_a_port_that_speaks_http_is_told_and_tried_once() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await error_at(f"https://{address}")
    assert isinstance(error, ConnectError)
    assert (error.outcome, len(error.attempts)) == ("not_sent", 1)
    assert f"cannot connect to {address}: the TLS handshake failed (" in str(error)
    assert "check that this port speaks https" in str(error)


async def test_a_connection_that_is_closed_in_the_handshake_is_tried_again() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        error = await error_at(url, retry=RetryPolicy(max_attempts=2, initial=0))
    assert (error.outcome, len(error.attempts)) == ("not_sent", 2)


@pytest.mark.parametrize("error", [ssl.SSLEOFError(8, "EOF"), ssl.SSLZeroReturnError(6, "closed")], ids=repr)
def test_the_end_of_a_connection_is_no_lasting_fault_of_tls(error: ssl.SSLError) -> None:
    assert as_tls_error(error, "h", 443)._repeatable
    assert not as_tls_error(ssl.SSLError(1, "anything else"), "::1", 443)._repeatable
    assert "[::1]:443" in str(as_tls_error(ssl.SSLError(1, "anything else"), "::1", 443))


@pytest.mark.parametrize(
    "given",
    ["ca.pem", False, True, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)],
    ids=["path", "off", "on", "for servers"],
)
def test_an_ssl_argument_that_no_client_can_use_is_refused_when_the_client_is_built(given: object) -> None:
    with pytest.raises(ConfigurationError, match=r"^ssl must be an ssl\.SSLContext for clients"):
        AsyncInfrai("k", ssl=given)  # type: ignore[arg-type]


# --- through a proxy that is reached over TLS --------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_may_be_reached_over_tls(authority: trustme.CA, scheme: str) -> None:
    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        heads.append(head.split(b" ")[0])
        await answer_by(head, reader, writer)

    async def answer_by(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    heads: list[bytes] = []
    body = answer(SMALL).body
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with await asyncio.start_server(tunnel, "127.0.0.1", 0, ssl=server_context(authority)) as server:
        proxy = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        options = {"ssl": trusting, "proxy": proxy, "retry": RetryPolicy.none()}
        async with AsyncInfrai("k", base_url=f"{scheme}://localhost:9", timeout=20, **options) as client:  # type: ignore[arg-type]
            if scheme == "http":
                assert (await client.db.project.get("p")).id == "p1"
            else:
                with pytest.raises(
                    ConnectError, match=r"localhost:9 through the proxy .*the proxy refused \(HTTP 403\)$"
                ):
                    await client.db.project.get("p")
    assert heads == [b"GET" if scheme == "http" else b"CONNECT"]
