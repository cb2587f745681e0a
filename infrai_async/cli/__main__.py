"""The argument parser of the command line, and the dispatch to the commands."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from infrai_async._version import __version__
from infrai_async.cli._output import Exit, UsageError, complain

_EXTRA_LOCAL: Final = frozenset({"asyncpg", "jinja2", "markupsafe", "semver", "sqlalchemy"})
"""The packages of the extra ``local`` that the commands import; the gateway itself looks for Postgres."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command line without the program's name. That of this process by default.

    Returns:
        The exit code, one of ``Exit``.
    """
    parser = _parser()
    typed, unknown = parser.parse_known_args(arguments)
    if unknown:  # reported with the usage of the command, not that of the whole program
        from infrai_async.models import mask_uri

        getattr(typed, "parser", parser).error(f"unrecognized arguments: {mask_uri(' '.join(unknown))}")
    if typed.command is None:
        parser.print_help(sys.stderr)
        return Exit.USAGE
    try:
        return _run(typed)
    except UsageError as error:
        complain(error)
        return Exit.USAGE
    except KeyboardInterrupt:
        complain("interrupted")
        return Exit.FAILED
    except BrokenPipeError:
        # The reader of stdout has gone. Python's last flush at exit must not fail for the same reason.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED


def _run(typed: Namespace) -> int:
    try:
        return int(typed.run(typed))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA_LOCAL:
            raise
        raise UsageError(f"{typed.command} needs the extra 'local': pip install 'infrai-async[local]'") from None


def _check_platform() -> None:
    """Refuse where no gateway runs, before anything else that is missing there fails in words of its own."""
    try:
        import fcntl  # noqa: F401 - POSIX systems have it
    except ModuleNotFoundError:
        try:
            import infrai_async.local  # noqa: F401 - its error says what to do instead
        except ImportError as error:
            raise UsageError(str(error)) from None


def _local(typed: Namespace) -> int:
    _check_platform()
    from infrai_async.cli._signals import leave_on_signals

    leave_on_signals()
    from infrai_async.cli._local import local

    return local(typed)


def _demo(typed: Namespace) -> int:
    _check_platform()
    from infrai_async.cli._demo import demo

    return demo(typed)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="infrai-async",
        description="Infrai from the command line: Postgres projects and branches, storage, CDN and feature flags.",
    )
    parser.add_argument("--version", action="version", version=f"infrai-async {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    _add_local(commands.add_parser("local", help="serve the API on this machine, backed by a real Postgres"))
    _add_demo(commands.add_parser("demo", help="try everything on this machine: databases, objects, an edge, flags"))
    return parser


def _add_local(parser: ArgumentParser) -> None:
    parser.description = "Serve the API on this machine until SIGINT (Ctrl-C) or SIGTERM."
    parser.set_defaults(run=_local, parser=parser)
    parser.add_argument(
        "--data-dir",
        metavar="D",
        type=_text,
        default="~/.infrai/local",
        help="the directory for all state, including the API key and the databases (default: %(default)s)",
    )
    parser.add_argument(
        "--host", metavar="H", type=_text, default="127.0.0.1", help="the address to listen on (default: %(default)s)"
    )
    parser.add_argument(
        "--port", metavar="P", type=_port, default=0, help="the port to listen on (default: a free port)"
    )
    parser.add_argument(
        "--public-url",
        metavar="U",
        type=_text,
        help="the address that everything given out names, databases included, for example http://gateway:8000 "
        "(default: the host that a request asked for)",
    )
    _add_postgres(parser)
    parser.add_argument("--s3-endpoint", metavar="U", help="URL of an S3-compatible store for the objects")
    parser.add_argument(
        "--allow-host",
        metavar="NAME",
        type=_text,
        action="append",
        default=[],
        help="another host name to accept requests for, for example that of a compose service; may be repeated",
    )


def _add_demo(parser: ArgumentParser) -> None:
    parser.description = "Start a gateway in a temporary directory, use all its services, and report results and cost."
    parser.set_defaults(run=_demo, parser=parser)
    parser.add_argument(
        "--projects", metavar="N", type=_count, default=20, help="the number of projects (default: %(default)s)"
    )
    parser.add_argument(
        "--branches",
        metavar="N",
        type=_count,
        default=5,
        help="the number of branches of each project (default: %(default)s)",
    )
    parser.add_argument(
        "--concurrency",
        metavar="N",
        type=_count,
        default=16,
        help="the maximum number of calls in flight (default: %(default)s)",
    )
    _add_postgres(parser)


def _add_postgres(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--postgres-dsn", metavar="U", type=_dsn, help="an existing Postgres server to use, as postgresql://..."
    )
    parser.add_argument("--postgres-bin", metavar="D", type=_text, help="the directory of the Postgres programs to use")


def _text(text: str) -> str:
    if not text.strip():  # as an unset variable of a script gives it
        raise ArgumentTypeError("it must not be empty")
    return text


def _dsn(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = "://" in text and parts.scheme in ("postgresql", "postgres") and (parts.port or 1) > 0
    except ValueError:  # of the port, or of brackets
        usable = False
    if not usable:  # not quoted, because it may hold a password
        raise ArgumentTypeError("it is not the URL of a Postgres server, such as postgresql://user@host:5432/database")
    return text


def _count(text: str) -> int:
    return _whole(text, 1, 1_000_000)


def _port(text: str) -> int:
    return _whole(text, 0, 65_535)


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
