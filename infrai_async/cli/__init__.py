"""The command line ``infrai-async``.

    __main__ -> {_local, _demo} -> {_output, _progress, _signals}

It stands above the client and the gateway and uses both as anybody would. A command's module, and with it everything
heavy, is imported when that command runs.
"""
