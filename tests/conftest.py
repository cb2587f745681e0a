"""Nothing may be left behind, in any test: no warning, no task destroyed while pending, no unclosed session."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from support.homes import homes

# The same examples on every run: a property that fails once fails for everybody.
settings.register_profile(
    "examples",
    derandomize=True,
    deadline=None,
    max_examples=100,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],  # the first example pays for compiling a model's reader
)
settings.load_profile("examples")

# A shell has what it starts in the background ignore Ctrl-C, and every process of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


class _Complaints(logging.Handler):
    """Collects what asyncio says through its logger rather than as a warning ("Task was destroyed ...")."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    complaints = _Complaints()
    logging.getLogger("asyncio").addHandler(complaints)
    yield
    gc.collect()
    logging.getLogger("asyncio").removeHandler(complaints)
    assert complaints.messages == []


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def nobodys_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests from the key, the address and the proxies of whoever runs them."""
    proxies = [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")]
    for name in ("INFRAI_API_KEY", "INFRAI_BASE_URL", *proxies):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session", autouse=True)
def clear_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """For root, clusters of data directories lie elsewhere and outlive them: those of the tests go at the end."""
    yield
    for home, owner in homes() if os.geteuid() == 0 else ():
        if owner.startswith(f"{tmp_path_factory.getbasetemp()}/"):
            shutil.rmtree(home)
