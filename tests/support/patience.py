"""How long a test waits for what is bound to come, and what a busy machine says meanwhile.

A wait that is awaited is as long as a machine with other work may need: it costs nothing where all goes well. Whether
something comes "at once" is told from what it would come after otherwise, which is ``LONG``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Final

LONG: Final = 60.0
"""Seconds: what nothing may wait for."""
SOON: Final = 20.0
"""Seconds: what comes "at once" and not after ``LONG``, however busy the machine is."""
PATIENCE: Final = 60.0
"""Seconds: how long a test waits for what nobody announces."""
_SLOW_STEP = re.compile(r"^Executing <.*> took [0-9.]+ seconds\n", re.MULTILINE)


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for what nobody announces, such as a connection that the server's kernel closes."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


async def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Let the loop run until what nobody announces has come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        await asyncio.sleep(0.002)


def complaints(stderr: str) -> str:
    """What a process wrote, without what asyncio's debug mode, part of -X dev, says of a machine with other work."""
    return _SLOW_STEP.sub("", stderr)
