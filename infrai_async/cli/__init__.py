"""The command line ``infrai-async``.

    __main__ -> {_local, _demo} -> {_output, _progress, _signals}

It uses only the public interfaces of the client and the gateway. The module of a command, and with it all expensive
imports, is loaded when that command runs.
"""
