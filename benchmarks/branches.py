"""What a copy of a database takes: ``python -m benchmarks.branches [--megabytes N ...] [--rounds N]``.

Postgres copies a database in two ways: through its write-ahead log, or file by file after a checkpoint. The gateway
chooses by size. Each size is copied both ways and by the gateway, in turn, and with many dirty buffers as well as right
after a checkpoint; shown are medians, in milliseconds, and the gateway's as a ratio of the faster way's.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import asyncpg

from infrai_async.local.postgres.databases import Postgres

_PASSWORD = "password"
_WAYS = ("wal_log", "file_copy")


async def measured(postgres: Postgres, megabytes: int, *, dirty: bool, rounds: int) -> dict[str, float]:
    """Return the median time of each way, in seconds."""
    source = f"ifr_source_{megabytes}_{dirty:d}"
    await postgres.create(source, _PASSWORD)
    inside = await asyncpg.connect(postgres.uri(source, _PASSWORD))
    await inside.execute("create table t (a int, b text)")
    row = "repeat(md5(i::text), 30)"  # a kilobyte
    await inside.execute(f"insert into t select i, {row} from generate_series(1, {megabytes} * 1000) i")
    times: dict[str, list[float]] = {way: [] for way in (*_WAYS, "gateway")}
    for number in range(rounds):
        for way, taken in times.items():
            await postgres._pool.execute("checkpoint")
            if dirty:
                await inside.execute("update t set a = a + 1 where a % 4 = 0")
            name = f"ifr_copy_{megabytes}_{dirty:d}_{number}_{way}"
            begun = time.perf_counter()
            if way == "gateway":
                inside_closed = inside.is_closed()
                await postgres.copy(source, name, _PASSWORD)
                taken.append(time.perf_counter() - begun)
                if not inside_closed:
                    inside = await asyncpg.connect(postgres.uri(source, _PASSWORD))
            else:
                await inside.close()
                await asyncio.sleep(0.05)
                begun = time.perf_counter()
                await postgres._pool.execute(f"create database {name} template {source} strategy {way}")
                taken.append(time.perf_counter() - begun)
                await postgres._pool.execute(f"drop database {name}")
                inside = await asyncpg.connect(postgres.uri(source, _PASSWORD))
            if way == "gateway":
                await postgres.drop(name)
    await inside.close()
    await postgres.drop(source)
    return {way: statistics.median(taken) for way, taken in times.items()}


async def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 12, 30, 60, 200])
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        postgres = await Postgres.start(Path(directory))
        try:
            print(f"{'MB':>5} {'buffers':8} {'wal_log':>8} {'file_copy':>9} {'gateway':>8} {'ratio':>6}")
            for megabytes in given.megabytes:
                for dirty in (False, True):
                    found = await measured(postgres, megabytes, dirty=dirty, rounds=given.rounds)
                    best = min(found[way] for way in _WAYS)
                    cells = [f"{1000 * found[way]:8.0f}" for way in (*_WAYS, "gateway")]
                    kind = "dirty" if dirty else "clean"
                    print(f"{megabytes:5} {kind:8}", *cells, f"{found['gateway'] / best:6.2f}", flush=True)
        finally:
            await postgres.aclose(remove=True)


if __name__ == "__main__":
    asyncio.run(main())
