"""The gateway as a command: it says how to reach it, serves, and ends when it is told to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.patience import complaints

from infrai_async import AsyncInfrai
from infrai_async.local.postgres.binaries import find

from .conftest import STRICT, Terminal, next_complaint

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


def first_line(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    ways_in = json.loads(process.stdout.readline())
    assert set(ways_in) == {"base_url", "api_key"}
    return {name: str(value) for name, value in ways_in.items()}


def create_project(ways_in: dict[str, str], name: str) -> str:
    """Create a project, list all there are, and return the address of the new one's database."""

    async def ask() -> str:
        async with AsyncInfrai(**ways_in) as client:
            project = await client.db.project.create(name=name)
            assert name in {found.name async for found in client.db.project.list()}
            return project.connection_uri

    return asyncio.run(ask())


def is_open(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname, parts.port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def test_it_serves_until_a_signal_and_keeps_its_key(start: Start, tmp_path: Path) -> None:
    keys = set()
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start("local", "--data-dir", str(tmp_path / "data"))
        ways_in = first_line(process)
        keys.add(ways_in["api_key"])
        database = create_project(ways_in, number.name)
        assert is_open(database)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=100)
        assert (process.returncode, stdout, complaints(stderr)) == (0, "", "")
        assert not is_open(database)
        assert not is_open(ways_in["base_url"])
    assert len(keys) == 1


def test_no_signal_after_the_first_changes_how_it_ends(start: Start, tmp_path: Path) -> None:
    process = start("local", "--data-dir", str(tmp_path / "data"))
    first_line(process)
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        for number in (signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
        time.sleep(0.001)
    assert process.wait(60) == 0


def test_what_the_screen_says_works_as_it_stands(terminal: Callable[..., Terminal]) -> None:
    shown = terminal(*STRICT, "-m", "infrai_async.cli", "local")
    screen = shown.wait_for("Postgres is ready.").replace("\r\n", "\n")
    home = Path(os.environ["HOME"])
    assert f"kept in {home / '.infrai' / 'local'};" in screen
    settings = dict(re.findall(r"^ +export (\w+)=(\S+)$", screen, re.MULTILINE))
    assert set(settings) == {"INFRAI_BASE_URL", "INFRAI_API_KEY"}
    snippet = re.findall(r"^ +((?:from|await) .+)$", screen, re.MULTILINE)
    assert len(snippet) == 2
    prompt = subprocess.run(
        [sys.executable, "-m", "asyncio"],
        input="\n".join([*snippet, ""]),
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert "Project(id='prj_" in prompt.stdout, prompt.stderr
    shown.press_ctrl_c()
    shown.wait_for("^C")
    shown.press_ctrl_c()
    assert shown.wait() == 0
    assert "Traceback" not in shown.shown
    assert not is_open(settings["INFRAI_BASE_URL"])


NO_POSTGRES = """
from infrai_async.cli.__main__ import main
from infrai_async.local.postgres import binaries
binaries._places = lambda: iter(())
raise SystemExit(main())
"""


def test_a_missing_postgres_is_said_before_anybody_needs_it(start: Start, tmp_path: Path) -> None:
    process = start("local", "--data-dir", str(tmp_path / "data"), code=NO_POSTGRES)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["postgres"] is False
    assert "pip install 'infrai-async[local]'" in next_complaint(process)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=100)
    assert (process.returncode, stdout, complaints(stderr)) == (0, "", "")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--postgres-bin", "{empty}"),
        ("--postgres-bin", "{empty}/absent"),
        ("--postgres-dsn", "postgresql://u:p@127.0.0.1:1/d"),
    ],
)
def test_a_postgres_that_was_asked_for_is_not_left_out(infrai: Run, tmp_path: Path, option: str, value: str) -> None:
    done = infrai("local", "--data-dir", str(tmp_path / "data"), option, value.format(empty=tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert option in done.stderr
    assert done.stderr.count("\n") == 1
    assert "u:p" not in done.stderr
    assert "request " not in done.stderr


def test_a_postgres_of_another_version_than_asked_for_ends_the_command(infrai: Run, tmp_path: Path) -> None:
    data, place = tmp_path / "data", tmp_path / "cluster"
    (place / "data").mkdir(parents=True)
    (place / "data" / "PG_VERSION").write_text("14\n")
    (data / "postgres").mkdir(parents=True)
    (data / "postgres" / "place").write_text(str(place))
    done = infrai("local", "--data-dir", str(data), "--postgres-bin", str(find().directory))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert f"was created by Postgres 14, which was not found in --postgres-bin {find().directory}" in done.stderr


def test_without_a_home_directory_another_place_is_asked_for(infrai: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import pathlib\npathlib.Path.expanduser = lambda _: (_ for _ in ()).throw(RuntimeError('no home'))\n"
    done = infrai("local", code=code + "from infrai_async.cli.__main__ import main\nraise SystemExit(main())")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give another --data-dir" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_taken_is_said_in_one_line(start: Start, infrai: Run, tmp_path: Path) -> None:
    first = start("local", "--data-dir", str(tmp_path / "data"))
    port = str(urlsplit(first_line(first)["base_url"]).port)
    for taken, options in (
        (str(tmp_path / "data"), ("--data-dir", str(tmp_path / "data"))),
        (port, ("--data-dir", str(tmp_path / "other"), "--port", port)),
    ):
        done = infrai("local", *options)
        assert (done.returncode, done.stdout) == (1, "")
        assert taken in done.stderr
        assert ("--port" if taken == port else "--data-dir") in done.stderr
        assert done.stderr.count("\n") == 1
        assert "Errno" not in done.stderr


def test_a_host_that_is_not_this_machine_is_said_in_one_line(infrai: Run, tmp_path: Path) -> None:
    options = ("--data-dir", str(tmp_path / "data"), "--host", "192.0.2.1")
    done = infrai("local", *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("infrai-async: cannot listen on 192.0.2.1 (")
    assert done.stderr.endswith("): give another --host\n")
    assert done.stderr.count("\n") == 1


def test_a_data_directory_that_cannot_be_used_is_said_in_one_line(infrai: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "broken" / "state").mkdir(parents=True)
    (tmp_path / "broken" / "state" / "state.db").write_text("this is no database, whatever its name says" * 99)
    for directory in ("file", "broken"):
        done = infrai("local", "--data-dir", str(tmp_path / directory), "--postgres-bin", str(tmp_path))
        assert (done.returncode, done.stdout) == (1, "")
        assert "--data-dir" in done.stderr
        assert str(tmp_path / directory) in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_further_host_name_is_allowed(start: Start, tmp_path: Path) -> None:
    process = start(
        "local", "--data-dir", str(tmp_path), "--allow-host", "gateway.internal", "--allow-host", "other.internal"
    )
    parts = urlsplit(first_line(process)["base_url"])
    for name, status in (("gateway.internal", 200), ("other.internal", 200), ("evil.example", 421)):
        with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
            connection.sendall(f"GET /v1/discovery HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
            assert connection.recv(12).decode() == f"HTTP/1.0 {status}"
