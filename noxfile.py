"""Every check of the project: ``nox`` runs tests, lowest, lint and types; soak, bench and build run on demand."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
FOUND = [version for version in PYTHONS if shutil.which(f"python{version}")] or [
    f"{sys.version_info.major}.{sys.version_info.minor}"
]
EXTRAS = "local,cli,progress,speed"
IN_FOUR = ("-n", "4", "--dist", "worksteal")
# What needs neither a Postgres nor a gateway: the client, whole and in parts.
WINGS = ["pure", "protocol", "observability", "display", "listing", "transport", "client", "wire"]
CLIENT = [f"tests/{wing}" for wing in WINGS]

nox.options.sessions = ["tests", "lowest", "lint", "types"]
nox.options.error_on_external_run = True
nox.options.default_venv_backend = "venv"


def groups(*names: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, *names)


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """The whole suite, on every kind of server, with the fast JSON library and without it."""
    session.install("-e", ".[local,cli,progress]", *groups("test"))
    whole = {"INFRAI_WHOLE_MATRIX": "1"}
    session.run("python", "-X", "dev", "-m", "pytest", *IN_FOUR, *session.posargs, env=whole)
    session.install("-e", ".[speed]")
    session.run("python", "-m", "pytest", *IN_FOUR, *CLIENT, *session.posargs)


@nox.session(python=FOUND[0])
def lowest(session: nox.Session) -> None:
    """The client, and what the gateway does without a Postgres, with the lowest versions that the bounds allow."""
    session.install("uv")
    bounds = Path(session.create_tmp()) / "lowest.txt"
    extras = [part for extra in EXTRAS.split(",") for part in ("--extra", extra)]
    version = session.run("python", "-c", "import sys; print(*sys.version_info[:2], sep='.')", silent=True)
    session.run(
        *("uv", "pip", "compile", "--quiet", "--resolution", "lowest-direct", "--python-version", str(version).strip()),
        *("pyproject.toml", *extras, "--no-header", "--no-annotate", "--output-file", str(bounds)),
    )
    # pip would try its way through the newer versions of all that the tests bring along.
    session.run("uv", "pip", "install", "--quiet", "-e", f".[{EXTRAS}]", *groups("test"), "--constraint", str(bounds))
    gateway = [f"tests/gateway/{wing}" for wing in ("http", "objects", "services", "state", "targeting")]
    session.run("python", "-m", "pytest", *IN_FOUR, *CLIENT, *gateway, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Kills by the dozens: as many as ``INFRAI_CRASH_KILLS`` says, else 60."""
    session.install("-e", f".[{EXTRAS}]", *groups("test"))
    kills = session.env.get("INFRAI_CRASH_KILLS") or "60"
    files = ["tests/gateway/test_crash.py", "tests/gateway/objects/test_crash.py"]
    session.run("python", "-m", "pytest", "-s", *files, *session.posargs, env={"INFRAI_CRASH_KILLS": kills})


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout."""
    session.install(*groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy and pyright over the package and over its use, and completeness of its public types."""
    session.install("-e", f".[{','.join(PROJECT['project']['optional-dependencies'])}]", *groups("types"))
    uses = ["tests/typing/public.py", "tests/typing/blocking.py"]
    session.run("mypy")
    session.run("mypy", "--strict", *uses, "tools")
    session.run("pyright")
    session.run("pyright", *uses)
    session.run("pyright", "--verifytypes", "infrai_async", "--ignoreexternal")


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks, as ratios against raw aiohttp."""
    session.install("-e", ".[speed]", *groups("bench"))
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The wheel, tried in an environment of its own."""
    session.install("build")
    session.run("python", "-m", "build", "--outdir", session.create_tmp())
    wheel = max(Path(session.create_tmp()).glob("*.whl"), key=lambda path: path.stat().st_mtime)
    session.run("python", "-m", "venv", "--clear", f"{session.create_tmp()}/venv")
    python = f"{session.create_tmp()}/venv/bin/python"
    session.run(python, "-m", "pip", "install", "-q", f"{wheel}[local]", external=True)
    session.run(python, "-m", "infrai_async.cli", "demo", "--projects", "2", "--branches", "1", external=True)
