"""What it costs before the first call: importing, building a client, making a view of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Final

from benchmarks.report import Result

_LONGEST: Final = 60.0  # seconds for one child

# Bare Python has been started by then, so this is what comes on top of it.
_TIMED: Final = """
import time
cpu, wall = time.process_time(), time.perf_counter()
{statement}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""
_IMPORTS: Final = (
    ("import aiohttp", "import aiohttp", None),
    *((f"import {name}", f"import {name}", None) for name in ("httpx", "requests", "openai") if find_spec(name)),
    ("import infrai_async", "import infrai_async", 0.10),
    ("... and build a client", "from infrai_async import AsyncInfrai; AsyncInfrai('ifr_key')", 1.20),
)

_BUILDING: Final = """
import json, time
from infrai_async import AsyncInfrai
client = AsyncInfrai("ifr_key")

def timed(function, count):
    figures = []
    for _ in range(9):
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(count):
            function()
        figures.append(((time.process_time() - cpu) / count, (time.perf_counter() - wall) / count))
    return sorted(figures)[4]

print(json.dumps([
    timed(lambda: AsyncInfrai("ifr_key"), 500),
    timed(lambda: client.with_options(timeout=5), 2000),
]))
"""


def measure_imports(*, rounds: int) -> list[Result]:
    """Measure imports, each in fresh processes, one after another."""
    results = [Result("start", name, "ms", goal) for name, _, goal in _IMPORTS]
    for number in range(rounds + 1):
        for result, (_, statement, _) in zip(results, _IMPORTS, strict=True):
            cpu, wall = (float(figure) for figure in _run(_TIMED.format(statement=statement)).split())
            if number:  # the first one may have had bytecode to compile
                result.cpu.append(cpu * 1e3)
                result.wall.append(wall * 1e3)
    for result in results[1:]:
        result.base = results[0]
    return results


def measure_building(*, rounds: int) -> list[Result]:
    """Measure a client after the first, and a view of one."""
    results = [Result("build", "a further client", "us", 20.0), Result("build", "with_options(timeout=5)", "us", 2.0)]
    for _ in range(rounds):
        for result, (cpu, wall) in zip(results, json.loads(_run(_BUILDING)), strict=True):
            result.cpu.append(cpu * 1e6)
            result.wall.append(wall * 1e6)
    return results


def _run(program: str) -> str:
    # Compiled once and kept, as wherever the package is installed.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_LONGEST,
        env=environment,
    )
    return done.stdout
