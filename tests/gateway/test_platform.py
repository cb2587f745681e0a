"""Where the gateway does not run, importing it says so."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
sys.platform = "win32"
try:
    import infrai_async.local
except ImportError as error:
    print(type(error).__name__, error.name, error)
assert not {"fcntl", "sqlalchemy", "asyncpg"} & set(sys.modules)
"""


def test_on_windows_an_import_says_where_the_gateway_runs_and_what_to_do() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ImportError infrai_async.local the local gateway runs on Linux and macOS")
    assert "WSL" in done.stdout
    assert "base_url" in done.stdout
