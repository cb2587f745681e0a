"""What can be typed, what is refused, and how little it takes to say so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version

import pytest

from infrai_async.cli.__main__ import _parser, main

from .conftest import STRICT

Run = Callable[..., subprocess.CompletedProcess[str]]

WITHOUT = """
import sys
sys.modules[{module!r}] = None
from infrai_async.cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
ON_WINDOWS = """
import signal, sys
sys.modules["fcntl"] = None
del signal.SIGHUP
from infrai_async.cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
SIGNALLED_WHILE_IMPORTING = """
import os, signal, sys

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name == "infrai_async.local":
            os.kill(os.getpid(), int(sys.argv[1]))

sys.meta_path.insert(0, Interrupter())
from infrai_async.cli.__main__ import main
sys.exit(main(["local"]))
"""


def test_the_script_is_the_module() -> None:
    (script,) = entry_points(group="console_scripts", name="infrai-async")
    assert script.load() is main


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, *STRICT, "-m", "infrai_async", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"infrai-async {version('infrai-async')}\n")


def test_without_a_command_the_help_is_shown(infrai: Run) -> None:
    done = infrai()
    assert done.returncode == 2
    assert done.stdout == ""
    assert "local" in done.stderr
    assert "demo" in done.stderr


def test_the_version_is_the_package_s(infrai: Run) -> None:
    done = infrai("--version")
    assert (done.returncode, done.stdout) == (0, f"infrai-async {version('infrai-async')}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["demo", "--projects", "0"],
        ["demo", "--branches", "-1"],
        ["demo", "--concurrency", "many"],
        ["local", "--port", "65536"],
        ["local", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_what_cannot_be_typed_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert arguments[-1] in capsys.readouterr().err


@pytest.mark.parametrize("unknown", ["--frob", "extra"])
@pytest.mark.parametrize("command", ["local", "demo"])
def test_what_a_command_does_not_know_is_said_with_its_usage(
    command: str, unknown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, unknown])
    assert ended.value.code == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith(f"usage: infrai-async {command} ")
    assert last == f"infrai-async {command}: error: unrecognized arguments: {unknown}"


def test_what_no_command_comes_with_is_said_with_the_usage_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--frob"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: infrai-async [-h]")


NO_DSNS = [
    "",
    "foo",
    "db.example:5432",
    "postgresql:foo",
    "mysql://u:s3cret@db.example/d",
    "postgresql+asyncpg://u:s3cret@db.example/d",
    "postgresql://u:s3cret@db.example:port/d",
    "postgresql://u:s3cret@db.example:99999/d",
    "postgresql://u:s3cret@[::1/d",
]


@pytest.mark.parametrize("dsn", NO_DSNS)
@pytest.mark.parametrize("command", ["local", "demo"])
def test_what_is_no_address_of_a_postgres_is_a_usage_error_without_its_password(
    command: str, dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, f"--postgres-dsn={dsn}"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "argument --postgres-dsn: " in said
    assert "postgresql://" in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://",
        "postgres://u:p@db.example:5432/d?sslmode=require",
        "POSTGRESQL:///d?host=/tmp",
        "postgres://[::1]",
    ],
)
def test_an_address_of_a_postgres_is_taken_as_it_is(dsn: str) -> None:
    assert _parser().parse_args(["local", "--postgres-dsn", dsn]).postgres_dsn == dsn


@pytest.mark.parametrize("option", ["--host", "--data-dir", "--postgres-bin", "--allow-host"])
def test_an_option_from_an_unset_variable_is_a_usage_error(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["local", option, ""])
    assert ended.value.code == 2
    assert f"argument {option}: it must not be empty" in capsys.readouterr().err


def test_the_password_of_a_mistyped_option_is_masked(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["local", "--postgres-dns=postgresql://u:s3cret@db.example/d"])
    said = capsys.readouterr().err
    assert "--postgres-dns=" in said
    assert "s3cret" not in said


def test_a_setting_that_the_gateway_refuses_is_a_usage_error(infrai: Run) -> None:
    done = infrai("local", "--s3-endpoint", "127.0.0.1:9000")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("infrai-async: s3_endpoint: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["sqlalchemy", "asyncpg", "jinja2", "markupsafe", "semver"])
@pytest.mark.parametrize("command", ["local", "demo"])
def test_a_missing_extra_is_named_with_what_installs_it(infrai: Run, command: str, module: str) -> None:
    done = infrai(command, code=WITHOUT.format(module=module))
    expected = f"infrai-async: {command} needs the extra 'local': pip install 'infrai-async[local]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.mark.parametrize("command", ["local", "demo"])
def test_on_windows_it_says_where_the_gateway_runs(infrai: Run, command: str) -> None:
    done = infrai(command, code=ON_WINDOWS)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("infrai-async: the local gateway runs on Linux and macOS, not on Windows: ")
    assert done.stderr.count("\n") == 1


def test_another_missing_module_is_not_blamed_on_the_extra(infrai: Run) -> None:
    done = infrai("demo", code=WITHOUT.format(module="aiohttp"))
    assert done.returncode == 1
    assert "extra" not in done.stderr


def test_the_parser_loads_nothing_heavy(infrai: Run) -> None:
    code = "import sys, infrai_async.cli.__main__; print(*sys.modules)"
    loaded = set(infrai(code=code).stdout.split())
    assert "infrai_async.cli._output" in loaded
    assert loaded.isdisjoint({"asyncio", "aiohttp", "attrs", "sqlalchemy", "asyncpg", "rich", "tqdm"})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_local_ends_cleanly_on_a_signal_before_anything_runs(infrai: Run, number: signal.Signals) -> None:
    done = infrai(str(int(number)), code=SIGNALLED_WHILE_IMPORTING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_reader_that_has_gone_is_no_traceback(tmp_path: os.PathLike[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, *STRICT, "-m", "infrai_async.cli", "demo", "--postgres-bin", str(tmp_path)]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=100)
    finally:
        os.close(writing)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
