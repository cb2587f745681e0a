"""The pool under stress: the benchmarks' probes, smaller, against a service in a process of its own.

They count and compare. Their margins are wide, because a busy machine is slow.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import storms
from benchmarks.service import running

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where ``python -m benchmarks.service`` is found


async def test_calls_that_come_while_the_service_pauses_wait_and_do_not_ask() -> None:
    with running("outage", seconds=0.55, retry_after=0.6) as service:
        told = await storms.staggered(service, calls=50, every=0.01)
    assert told["wrong"] == 0, told["why"]
    assert 1 <= told["refused"] <= 5
    assert told["requests"] <= 50 + 5
    assert told["seconds"] >= 0.6


async def test_a_limited_service_is_used_at_the_rate_that_it_allows() -> None:
    with running("bucket", rate=200.0, burst=20.0, retry_after=0.1) as service:
        told = await storms.bucket(service, calls=300, after=0.5)
    ideal = (300 - 20) / 200
    assert told["wrong"] == 0, told["why"]
    assert told["late"] <= 0.15
    assert told["refused"] <= 150
    assert ideal * 0.9 <= told["seconds"] <= ideal * 3


async def test_calls_end_right_and_effects_happen_once_while_answers_break() -> None:
    with running("chaos", each=0.03) as service:
        told = await storms.chaos(service, calls=1_000)
    assert told["wrong"] == 0, told["why"]
    assert (told["made"], told["twice"], told["lost"]) == (500, 0, 0)
    assert set(told["faults"]) >= {f"{kind}, after the effect" for kind in ("reset", "503", "truncated")}
    assert told["replayed"] > 0  # some were asked for again that had been done


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
async def test_a_slow_consumer_holds_the_listing_back() -> None:
    with running("listing") as service:
        program = f"""
import asyncio, json
from benchmarks import storms
from benchmarks.service import Service
print(json.dumps(asyncio.run(storms.memory(Service({service.url!r}), projects=200, pause=0.005))))
"""
        done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, timeout=60)
    told = json.loads(done.stdout)
    assert told["items"] == 200_000
    assert told["mib"] < 48  # all of them would be twice that
