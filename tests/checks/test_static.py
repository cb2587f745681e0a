"""Style and types hold, as the tools that judge them say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.parametrize(
    "command",
    [
        "ruff check",
        "ruff format --check",
        "mypy",
        "mypy --strict tests/typing/public.py tests/typing/blocking.py",
        "pyright",
        "pyright tests/typing/public.py tests/typing/blocking.py",
    ],
)
def test_it_is_clean(command: str) -> None:
    done = subprocess.run(command.split(), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_public_type_is_complete(tmp_path: Path) -> None:
    command = ["pyright", "--verifytypes", "infrai_async", "--ignoreexternal"]
    done = subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=110)
    assert "Type completeness score: 100%" in done.stdout, done.stdout
    assert "Functions without docstring: 0" in done.stdout
    assert "Classes without docstring: 0" in done.stdout
