"""Scripts in processes of their own, under the strictest interpreter, and a server that sees who hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import Any, Final, Self

import attrs
import pytest
from support.oracle import SMALL, Oracle, Reply, Seen, answer
from support.patience import LONG, complaints

from infrai_async.sync._runner import Runner

BOUND: Final = 100.0  # seconds: what any child may take
# From 3.12 on, a fork while threads run is warned of: which they do in every test of it.
FORKING: Final = ("-W", "ignore:This process:DeprecationWarning")


class Attentive(Oracle):
    """An oracle that notices a client which hangs up while its answer is being delayed."""

    def __init__(self, reply: Callable[[Seen], Reply]) -> None:
        super().__init__(reply)
        self.hung_up: list[int] = []  # the connections, by number
        self._readers: dict[asyncio.StreamWriter, tuple[int, asyncio.StreamReader]] = {}

    @property
    def open_connections(self) -> int:
        return len(self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._readers[writer] = self.connections + 1, reader
        await super()._serve(reader, writer)

    async def _answer(self, reply: Reply, writer: asyncio.StreamWriter) -> bool:
        if reply.delay:
            number, reader = self._readers[writer]
            try:
                async with asyncio.timeout(reply.delay):
                    await reader.read(1)
            except TimeoutError:
                pass
            else:
                self.hung_up.append(number)
                return False
        return await super()._answer(attrs.evolve(reply, delay=0.0), writer)


def by_name(seen: Seen) -> Reply:
    """Answer ``.../slow...`` long after everybody has gone, ``.../brief...`` after a while, the rest at once."""
    last = seen.path.rpartition("/")[2]
    delay = LONG if last.startswith("slow") else 0.5 if last.startswith("brief") else 0.0
    return answer({**SMALL, "id": last}, delay=delay)


class Child:
    """A Python process that runs a script, with every warning an error; it is killed when it takes too long."""

    def __init__(self, script: str, *arguments: str, options: tuple[str, ...] = (), bound: float = BOUND) -> None:
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the child
        command = [sys.executable, "-X", "dev", "-W", "error", *options, "-c", script, *arguments]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._watchdog = threading.Timer(bound, self._kill)
        self._watchdog.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._watchdog.join()
        self._kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._errors.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # all of it: its own children hold its standard output
            os.killpg(self.pid, signal.SIGKILL)

    def line(self) -> str:
        """The next line that it prints; none when it ends, or is killed."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def signal(self, number: signal.Signals = signal.SIGINT) -> None:
        os.kill(self.pid, number)

    def end(self) -> tuple[str, str, int]:
        """Wait for the end: what else it printed, what it complained of, and the exit code."""
        assert self._process.stdout is not None
        printed = self._process.stdout.read()
        code = self._process.wait()
        self._errors.seek(0)
        return printed, complaints(self._errors.read()), code


def count_thread_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A list that grows with each way into an event loop."""
    crossings: list[object] = []
    run = Runner.run

    def counted(self: Runner, start: Any, **options: Any) -> Any:
        crossings.append(start)
        return run(self, start, **options)

    monkeypatch.setattr(Runner, "run", counted)
    return crossings


def run(script: str, *arguments: str, **options: Any) -> tuple[str, str, int]:
    """Run a script to its end: what it printed, what it complained of, and the exit code."""
    with Child(script, *arguments, **options) as child:
        return child.end()
