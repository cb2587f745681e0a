"""A real browser for the tests that look at pages: the Chromium or Chrome that this machine has."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright

NAMES = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "chromium-headless-shell",
)
PLACES = (
    "/usr/bin/chromium",
    "/usr/lib/chromium/chromium",
    "/snap/bin/chromium",
    "/opt/google/chrome/chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
)
MISSING = (
    "no Chromium or Chrome on this machine, so nobody looked at the page: install one"
    " (Debian: apt-get install chromium fonts-dejavu-core), or name its program in INFRAI_TEST_BROWSER"
)


def find_browser() -> str | None:
    """The program to start; one that is named has to be there."""
    named = os.environ.get("INFRAI_TEST_BROWSER")
    if named:
        assert runs(named), f"INFRAI_TEST_BROWSER: {named} is no browser that starts"
        return named
    on_path = (found for name in NAMES if (found := shutil.which(name)))
    return next(filter(runs, (*on_path, *PLACES)), None)


def runs(program: str) -> bool:
    """Whether it starts: some systems have a program of the name that only says where to get the browser."""
    try:
        return not subprocess.run([program, "--version"], capture_output=True, timeout=100).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False


@asynccontextmanager
async def open_browser() -> AsyncIterator[Browser]:
    program = find_browser()
    if program is None:
        pytest.skip(MISSING)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program)
        try:
            yield browser
        finally:
            await browser.close()
