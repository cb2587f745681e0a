"""Nothing may be left behind, in any test: no warning, no task destroyed while pending, no unclosed session."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator

import pytest


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
    for name in ("INFRAI_API_KEY", "INFRAI_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
