"""How many user instructions a warm call takes, by function of C: valgrind counts them, and hardly two runs differ.

A contender runs twice, once with a few calls and once with more. What both have, starting and warming up, falls out of
the difference.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.calls import NAIVE, PLAIN, SPEED, TUNED, Contender

CONTENDERS: Final = (NAIVE, TUNED, PLAIN, SPEED)
GOALS: Final = {("get", 16, SPEED): 0.82}  # of naive aiohttp's, by work and number in flight
_FEW, _MANY = 200, 600
_LONGEST: Final = 300.0  # seconds for one run: a turn cut short would be divided by calls that were not made


def available() -> bool:
    """Return whether there is a valgrind to count with."""
    return shutil.which("valgrind") is not None


def count(name: str, work: str, url: str, *, in_flight: int) -> Counter[str]:
    """Return the instructions of one call, by function."""
    few, many = (_run(name, work, url, in_flight, calls) for calls in (_FEW, _MANY))
    many.subtract(few)
    return Counter({function: round(more / (_MANY - _FEW)) for function, more in many.items()})


def _run(name: str, work: str, url: str, in_flight: int, calls: int) -> Counter[str]:
    with tempfile.TemporaryDirectory(prefix="infrai-bench-") as directory:
        counted = Path(directory, "counted")
        # With a fixed seed the same dictionaries have the same collisions in every run.
        under = ["env", "PYTHONHASHSEED=0", "valgrind", "--tool=cachegrind", "--cache-sim=no"]
        under += [f"--cachegrind-out-file={counted}", f"--log-file={Path(directory, 'log')}"]
        with Contender(name, work, url, in_flight=in_flight, longest=_LONGEST, under=under) as contender:
            made = contender.told(calls)["calls"]
        if made != calls:
            raise RuntimeError(f"{name} made {made} of {calls} calls in {_LONGEST:g} s")
        return by_function(counted.read_text())


def by_function(text: str) -> Counter[str]:
    """Return what a file of cachegrind's says: a line for each function, under it what its lines took."""
    counted: Counter[str] = Counter()
    function = ""
    for line in text.splitlines():
        if line.startswith("fn="):
            function = line.removeprefix("fn=")
        elif line[:1].isdigit():
            counted[function] += int(line.split()[1])
    return counted
