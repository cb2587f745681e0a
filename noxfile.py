"""Every check of the project: ``nox`` runs tests, lint and types; ``nox -s bench`` and ``nox -s build`` on demand."""

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

nox.options.sessions = ["tests", "lint", "types"]
nox.options.error_on_external_run = True
nox.options.default_venv_backend = "venv"


def groups(*names: str) -> list[str]:
    return nox.project.dependency_groups(PROJECT, *names)


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """The whole suite, with the fast JSON library and without it."""
    session.install("-e", ".[local,cli,progress]", *groups("test"))
    session.run("python", "-X", "dev", "-m", "pytest", *session.posargs)
    session.install("-e", ".[speed]")
    session.run("python", "-m", "pytest", "tests/pure", "tests/client", "tests/wire", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and layout."""
    session.install(*groups("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Mypy and pyright over the package, and completeness of its public types."""
    session.install("-e", ".[local,cli,progress,speed]", *groups("types"))
    session.run("mypy")
    session.run("pyright")
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
