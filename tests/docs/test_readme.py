"""The README does what it says: its snippets run as they stand, and its commands are the ones that CI runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

import infrai_async
from infrai_async.local import LocalGateway

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(LocalGateway()) as gateway:
        yield {**os.environ, "INFRAI_BASE_URL": gateway.base_url, "INFRAI_API_KEY": gateway.api_key}


@pytest.mark.parametrize("snippet", snippets("python"))
def test_a_snippet_runs_as_it_stands(snippet: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-W", "error", "-c", snippet]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    (_, test_command) = snippets("bash")
    assert test_command.strip() in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_every_name_in_the_readmes_table_of_errors_exists() -> None:
    named = set(re.findall(r"`(\w+(?:Error|Argument))`", README))
    assert len(named) > 10
    assert {name for name in named if not hasattr(infrai_async, name) and name != "ValueError"} == set()


def test_every_rule_that_the_code_names_stands_in_the_contract() -> None:
    contract = (ROOT / "docs" / "CONTRACT.md").read_text(encoding="utf-8")
    named = set()
    for path in (ROOT / "infrai_async").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= {f"| {rule} |" for rule in re.findall(r"\bD[1-9][0-9]?\b", text)}
        named |= {f"## {section}" for section in re.findall(r"CONTRACT\.md ([12]\.[0-9]+)", text)}
    assert len(named) > 20
    assert {rule for rule in named if rule not in contract} == set()
