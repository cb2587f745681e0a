"""Where a call spends itself: ``python -m benchmarks.profile [get|same|page] [--instructions] [--lines N]``.

Counts the bytecodes that one warm call executes, by function. Unlike times they are the same on every machine and at
every moment, so a change shows even where it gains less than the noise; what C code does in between they do not show.
With ``--instructions`` valgrind counts all that the process executes, for this client and for whom it is compared with.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks import contenders, instructions
from benchmarks.calls import NAIVE, present
from benchmarks.contenders import Call
from benchmarks.server import running

_WARM: Final = 50  # calls, until the interpreter has specialised what it runs
_OURS: Final = "infrai_async"

Function = tuple[str, str]


def main() -> None:
    """Print what a call executes, of the client and of whom it is compared with."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.instructions and not instructions.available():
        parser.exit(2, "Counting instructions needs valgrind, which is not on the PATH.\n")
    with tempfile.TemporaryDirectory(prefix="infrai-bench-") as name, running(Path(name), None) as server:
        if arguments.instructions:
            _show_instructions(server.http, arguments)
        else:
            _show_bytecodes(server.http, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("work", nargs="?", choices=("get", "same", "page"), default="get")
    parser.add_argument("--lines", type=int, metavar="N", help="functions to show (default 30, of instructions none)")
    parser.add_argument("--instructions", action="store_true", help="count instructions instead, by valgrind")
    parser.add_argument("--in-flight", type=int, default=16, metavar="N", help="calls at once, of instructions")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="the contenders with one in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the instructions there, with all functions")
    return parser


def _show_bytecodes(url: str, arguments: argparse.Namespace) -> None:
    tuned, ours = (asyncio.run(_count(contender, url, arguments.work)) for contender in ("tuned", "sdk"))
    own = sum(count for (package, _), count in ours.items() if package == _OURS)
    print(f"aiohttp tuned: {tuned.total()} bytecodes; the client: {ours.total()}, of which {own} its own")
    for (package, function), count in ours.most_common(30 if arguments.lines is None else arguments.lines):
        print(f"{count:6} {package:14} {function}")


def _show_instructions(url: str, arguments: argparse.Namespace) -> None:
    work, in_flight = arguments.work, arguments.in_flight
    names = [name for name in present(*instructions.CONTENDERS) if any(word in name for word in arguments.only)]
    counted: dict[str, Counter[str]] = {}
    for name in names:
        counted[name] = instructions.count(name, work, url, in_flight=in_flight)
        goal = instructions.GOALS.get((work, in_flight, name))
        ratio = counted[name].total() / counted[NAIVE].total() if NAIVE in counted else None
        line = f"{name:20} {counted[name].total():9,} instructions"
        print(line + (f"  {ratio:.3f} of naive" if ratio else "") + (f"  goal {goal}" if goal else ""), flush=True)
        for function, count in counted[name].most_common(arguments.lines or 0):
            print(f"    {count:9,} {function}")
    if arguments.json:
        arguments.json.write_text(json.dumps(_document(counted, work, in_flight), indent=1) + "\n")


def _document(counted: Mapping[str, Counter[str]], work: str, in_flight: int) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "work": work,
        "in_flight": in_flight,
        "contenders": {
            name: {"instructions": functions.total(), "functions": dict(functions.most_common())}
            for name, functions in counted.items()
        },
    }


async def _count(contender: str, url: str, work: str) -> Counter[Function]:
    call, close = await contenders.CONTENDERS[contender](url, work, 1)
    for _ in range(_WARM):
        await call()
    for _ in range(2):  # from 3.12 on, code is only counted whole when it was traced before
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
