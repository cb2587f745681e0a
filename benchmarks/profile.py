"""Where a call spends itself: ``python -m benchmarks.profile [get|page] [--lines N]``.

Counts the bytecodes that one warm call executes, by function. Unlike times they are the same on every machine and at
every moment, so a change shows even where it gains less than the noise; what C code does in between they do not show.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks import contenders
from benchmarks.contenders import Call
from benchmarks.server import running

_WARM: Final = 50  # calls, until the interpreter has specialised what it runs
_OURS: Final = "infrai_async"

Function = tuple[str, str]


def main() -> None:
    """Print what a call of the client executes, and what a call of aiohttp tuned does."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("work", nargs="?", choices=("get", "page"), default="get")
    parser.add_argument("--lines", type=int, default=30, metavar="N", help="functions to show")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="infrai-bench-") as name, running(Path(name), None) as server:
        tuned, ours = (asyncio.run(_count(contender, server.http, arguments.work)) for contender in ("tuned", "sdk"))
    own = sum(count for (package, _), count in ours.items() if package == _OURS)
    print(f"aiohttp tuned: {tuned.total()} bytecodes; the client: {ours.total()}, of which {own} its own")
    for (package, function), count in ours.most_common(arguments.lines):
        print(f"{count:6} {package:14} {function}")


async def _count(contender: str, url: str, work: str) -> Counter[Function]:
    call, close = await contenders.CONTENDERS[contender](url, work, 1)
    for _ in range(_WARM):
        await call()
    counted: Counter[Function] = Counter()
    sys.settrace(_counting(counted))
    try:
        await asyncio.create_task(_one(call))  # frames that are running already are not traced
    finally:
        sys.settrace(None)
    await close()
    return counted


async def _one(call: Call) -> None:
    await call()


def _counting(counted: Counter[Function]) -> Any:
    def trace(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            counted[_name(frame)] += 1
        return trace

    return trace


def _name(frame: FrameType) -> Function:
    """Return the package of a frame's code and the function's name; what is compiled at run time is the client's."""
    path, function = Path(frame.f_code.co_filename), frame.f_code.co_qualname
    packages = [part for part in path.parts if part in (_OURS, "aiohttp", "yarl", "multidict", "asyncio", "benchmarks")]
    made = path.name.startswith("<") and _OURS
    return (packages[0] if packages else made or path.stem), function


if __name__ == "__main__":
    main()
