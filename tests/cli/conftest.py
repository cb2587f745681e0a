"""The command line as its users run it: a process, on pipes or on a terminal of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.patience import complaints

STRICT = ("-X", "dev", "-W", "error")
"""Python options under which nothing may be left open, and no warning is one."""
SECONDS = 100
# A session's leader gets the first terminal that it opens as its own, and with it what Ctrl-C sends.
ON_ITS_TERMINAL = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def next_complaint(process: subprocess.Popen[str]) -> str:
    """The next line on stderr that is the command's own."""
    assert process.stderr is not None
    return next((line for line in process.stderr if complaints(line)), "")


class Terminal:
    """A process on a pseudo-terminal, and what it has shown."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = os.openpty()
        command = [sys.executable, "-c", ON_ITS_TERMINAL, *arguments]
        termios.tcsetwinsize(slave, (50, 200))
        environment = os.environ | {"TERM": "xterm"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self._received = b""

    @property
    def shown(self) -> str:
        """The text without colours and movements of the cursor."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._received.decode(errors="replace"))

    def wait_for(self, text: str) -> str:
        """Read until ``text`` was shown, and return all that was."""
        return self._read(lambda: text in self.shown)

    def wait(self) -> int:
        """Read until the process has ended, and return its exit code."""
        self._read(lambda: False)
        return self.process.wait(SECONDS)

    def press_ctrl_c(self) -> None:
        os.write(self._master, b"\x03")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)

    def _read(self, enough: Callable[[], bool]) -> str:
        deadline = time.monotonic() + SECONDS
        while not enough():
            ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"nothing more came after: {self.shown!r}"
            try:
                self._received += os.read(self._master, 65_536)
            except OSError:  # how Linux says that the other side is gone
                break
        return self.shown


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the processes of a test put what is temporary."""
    path = tmp_path / "tmp"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    return path


@pytest.fixture
def infrai() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command on pipes, to its end."""

    def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
        what = ("-m", "infrai_async.cli") if code is None else ("-c", code)
        command = [sys.executable, *STRICT, *what, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, stdin=subprocess.DEVNULL)
        done.stderr = complaints(done.stderr)
        return done

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a command on pipes; what still runs when the test is over is ended."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, code: str | None = None) -> subprocess.Popen[str]:
        what = ("-m", "infrai_async.cli") if code is None else ("-c", code)
        command = [sys.executable, *STRICT, *what, *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, text=True, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    """Starts Python with these arguments on a terminal of its own."""
    opened: list[Terminal] = []

    def begin(*arguments: str) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield begin
    for each in opened:
        each.close()
