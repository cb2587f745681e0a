"""The command line ``infrai-async``, as ``python -m infrai_async``."""

from __future__ import annotations

import sys

from infrai_async.cli.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
