"""Every public name has a type that no checker has to guess, as pyright says; run by ``nox -s types``.

The gateway's rooms, ``infrai_async.local.*``, bear no underscore and are nobody's to import: `LocalGateway` is public.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

COMMAND = ["pyright", "--verifytypes", "infrai_async", "--ignoreexternal", "--outputjson"]


def incomplete(report: Any) -> list[str]:
    """What is public and has no complete type."""
    return [
        f"{symbol['name']}: {message['message']}"
        for symbol in report["typeCompleteness"]["symbols"]
        if symbol["isExported"] and not symbol["name"].startswith("infrai_async.local.")
        for message in symbol.get("diagnostics", [])
        if message["severity"] == "error"
    ]


def main() -> int:
    done = subprocess.run(COMMAND, capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        print(done.stdout, done.stderr, sep="\n")
        return 1
    public = sum(symbol["isExported"] for symbol in report["typeCompleteness"]["symbols"])
    found = incomplete(report)
    print(*found, f"{len(found)} of {public} public names lack a type", sep="\n")
    return 1 if found or public < 500 else 0


if __name__ == "__main__":
    sys.exit(main())
