"""Runs the benchmarks: ``python -m benchmarks [--quick] [--json FILE] [--only WORD ...]``."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import answers, bulk, memory, storms
from benchmarks.calls import cases, measure, measure_iteration
from benchmarks.report import Result, document, page, table
from benchmarks.server import Certificate, Server, make_certificate, running
from benchmarks.startup import measure_building, measure_imports

Plan = list[tuple[str, Callable[[], list[Result]]]]


def main() -> None:
    """Measure, print the table, write the figures."""
    arguments = _parsed()
    rounds, turns = arguments.rounds or (2 if arguments.quick else 5), (4 if arguments.quick else 6)
    _allow_connections()
    results: list[Result] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="infrai-bench-") as name:
        certificate = None if arguments.quick else make_certificate(Path(name))
        if certificate is None and not arguments.quick:
            print("no TLS: trustme is not installed", file=sys.stderr)
        with running(Path(name), certificate, nginx=not arguments.no_nginx) as server:
            for title, run in _plan(server, certificate, rounds=rounds, turns=turns):
                if any(word in title for word in arguments.only):
                    print(f"... {title}", file=sys.stderr, flush=True)
                    results += run()
    seconds = round(time.monotonic() - began)
    settings = {"server": server.kind, "rounds": rounds, "turns": turns, "quick": arguments.quick, "seconds": seconds}
    print(f"server: {server.kind}; {rounds} rounds of {turns} turns; {seconds} s\n")
    print(table(results))
    figures = document(results, settings)
    if arguments.json:
        _write(arguments.json, json.dumps(figures, indent=1))
    if arguments.docs:
        from benchmarks import plot

        _write(arguments.docs / "benchmarks.json", json.dumps(figures, indent=1))
        _write(arguments.docs / "benchmarks.md", page(results, figures))
        plot.draw(figures["results"], arguments.docs)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What the client costs.")
    parser.add_argument("--quick", action="store_true", help="a rough idea in some minutes: http only, few rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    parser.add_argument("--docs", type=Path, metavar="DIRECTORY", help="write figures, table and plots there")
    parser.add_argument(
        "--only", nargs="+", default=[""], metavar="WORD", help="the cases with one of these in their name"
    )
    parser.add_argument("--rounds", type=int, help="fresh processes for each contender (default 5, quick 2)")
    parser.add_argument("--no-nginx", action="store_true", help="use the server in Python even where nginx is found")
    return parser.parse_args()


def _allow_connections() -> None:
    """Let every process have as many open at once as it may ask for: a thousand calls wait in one case."""
    with contextlib.suppress(ImportError):  # Windows has no such limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _plan(server: Server, certificate: Certificate | None, *, rounds: int, turns: int) -> Plan:
    """Return what there is to measure, by name."""
    authority = certificate.authority if certificate else None
    plan: Plan = [
        (case.name, partial(measure, case, server, authority, rounds=rounds, turns=turns))
        for case in cases()
        if not case.tls or certificate
    ]
    plan += [
        (title, partial(measure_iteration, server, blocking=blocking, rounds=rounds, turns=turns))
        for title, blocking in (("iterate", False), ("blocking iterate", True))
    ]
    plan.append(("start: import", partial(measure_imports, rounds=2 * rounds + 1)))
    plan.append(("build", partial(measure_building, rounds=rounds)))
    plan += [
        (
            f"bulk, {per_page} a page",
            partial(bulk.measure, per_page, rounds=rounds, turns=3 if per_page == 10 else 1),
        )
        for per_page in answers.PER_PAGES
    ]
    plan += [(title, partial(storms.measure, title, rounds=rounds)) for title in storms.STORMS]
    if memory.MEASURABLE:
        plan += [(title, partial(memory.measure, title, server, rounds=rounds)) for title in memory.CASES]
    return plan


def _write(target: Path, text: str) -> None:
    target.write_text(text.rstrip() + "\n")


if __name__ == "__main__":
    main()
