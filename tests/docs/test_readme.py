"""The README does what it says: its snippets run as they stand, and its commands are the ones that CI runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import infrai_async
from infrai_async import Infrai
from infrai_async.local import LocalGateway

ROOT = Path(__file__).parent.parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    with LocalGateway() as gateway:
        with Infrai(gateway.api_key, base_url=gateway.base_url) as client:
            # What a reader has made before: workers share the snippets, so any of them may be the first.
            project = client.db.project.create(name="made before")
            client.db.branch.create(project_id=project.id, branch_name="preview")
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


def test_every_link_works_from_a_page_of_the_package_index() -> None:
    files = f"{PROJECT['urls']['Repository']}/blob/main/"
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert [link for link in links if not link.startswith("https://")] == []
    own = [link.removeprefix(files) for link in links if link.startswith(files)]
    assert len(own) > 4
    assert [path for path in own if not (ROOT / path).is_file()] == []


def test_every_link_of_the_code_leads_to_a_rule() -> None:
    contract = (ROOT / "docs" / "CONTRACT.md").read_text(encoding="utf-8")
    page = f"{PROJECT['urls']['Repository']}/blob/main/docs/CONTRACT.md"
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "infrai_async").rglob("*.py")]
    links = [link for text in texts for link in re.findall(r"https://github\.com/[^\s>`)]+[^\s>`).,]", text)]
    assert links
    assert {link.partition("#")[0] for link in links} == {page}
    rules = {rule for link in links if (rule := link.partition("#")[2])}
    assert {rule for rule in rules if f'id="{rule}"' not in contract} == set()


def test_every_name_in_the_readmes_table_of_errors_exists() -> None:
    named = set(re.findall(r"`(\w+(?:Error|Argument))`", README))
    assert len(named) > 10
    assert {name for name in named if not hasattr(infrai_async, name) and name != "ValueError"} == set()


def test_every_rule_that_the_code_names_stands_in_the_contract() -> None:
    contract = (ROOT / "docs" / "CONTRACT.md").read_text(encoding="utf-8")
    named = set()
    for path in (ROOT / "infrai_async").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        named |= {f'<a id="{rule.lower()}"></a>{rule} |' for rule in re.findall(r"\bD[1-9][0-9]?\b", text)}
        named |= {f"## {section}" for section in re.findall(r"(?:CONTRACT\.md|contract) ([12]\.[0-9]+)", text)}
    assert len(named) > 20
    assert {rule for rule in named if rule not in contract} == set()
