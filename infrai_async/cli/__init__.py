"""The command line ``infrai-async``.

    __main__ -> {_local, _demo} -> {_output, _progress, _signals}

It uses the client and the gateway through their public interfaces. The module of a command, with its heavy imports, is
loaded when the command runs.
"""
