"""Runs the benchmarks: ``python -m benchmarks [--quick] [--json FILE] [--only WORD ...]``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import answers, bulk, memory, storms
from benchmarks.calls import cases, measure, measure_iteration
from benchmarks.report import Result, document, table
from benchmarks.server import make_certificate, running
from benchmarks.startup import measure_building, measure_imports


def main() -> None:
    """Measure, print the table, write the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What the client costs.")
    parser.add_argument("--quick", action="store_true", help="a rough idea in about 20 seconds: http only, few rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="the cases with one of these in their name"
    )
    parser.add_argument("--rounds", type=int, help="fresh processes for each contender (default 5, quick 2)")
    parser.add_argument("--no-nginx", action="store_true", help="use the server in Python even where nginx is found")
    arguments = parser.parse_args()
    rounds, turns = arguments.rounds or (2 if arguments.quick else 5), (4 if arguments.quick else 6)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="infrai-bench-") as name:
        certificate = None if arguments.quick else make_certificate(Path(name))
        authority = certificate.authority if certificate else None
        with running(Path(name), certificate, nginx=not arguments.no_nginx) as server:
            planned: list[tuple[str, Callable[[], list[Result]]]] = [
                (
                    case.name,
                    partial(measure, case, server, authority, rounds=rounds, turns=turns),
                )
                for case in cases()
                if not case.tls or certificate
            ]
            planned += [
                (title, partial(measure_iteration, server, blocking=blocking, rounds=rounds, turns=turns))
                for title, blocking in (("iterate", False), ("blocking iterate", True))
            ]
            planned.append(("start: import", partial(measure_imports, rounds=2 * rounds + 1)))
            planned.append(("build", partial(measure_building, rounds=rounds)))
            planned += [
                (
                    f"bulk, {per_page} a page",
                    partial(bulk.measure, per_page, rounds=rounds, turns=3 if per_page == 10 else 1),
                )
                for per_page in answers.PER_PAGES
            ]
            planned += [(title, partial(storms.measure, title, rounds=rounds)) for title in storms.STORMS]
            if memory.MEASURABLE:
                planned += [(title, partial(memory.measure, title, server, rounds=rounds)) for title in memory.CASES]
            results: list[Result] = []
            for title, run in planned:
                if any(word in title for word in arguments.only):
                    print(f"... {title}", file=sys.stderr, flush=True)
                    results += run()
            kind = server.kind
    seconds = time.monotonic() - began
    if certificate is None and not arguments.quick:
        print("no TLS: trustme is not installed", file=sys.stderr)
    print(f"server: {kind}; {rounds} rounds of {turns} turns; {seconds:.0f} s\n")
    print(table(results))
    if arguments.json:
        settings = {"server": kind, "rounds": rounds, "turns": turns, "quick": arguments.quick, "seconds": seconds}
        arguments.json.write_text(json.dumps(document(results, settings), indent=1) + "\n")


if __name__ == "__main__":
    main()
