"""``infrai-async local``: runs the gateway until a signal ends it."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from pathlib import Path
from typing import Final

from infrai_async.cli._output import Exit, UsageError, complain, note, on_terminal, write_json
from infrai_async.cli._signals import cancel_on_signals
from infrai_async.local import DirectoryInUse, LocalGateway

_SCREEN: Final = """\
Infrai on this machine: {base_url}
Its state is kept in {place}; start it with the same again for the same key, address and databases.

In another terminal:

    export INFRAI_BASE_URL={base_url}
    export INFRAI_API_KEY={api_key}

Then, in the prompt of `python -m asyncio`:

    from infrai_async import AsyncInfrai; client = AsyncInfrai()
    await client.db.project.create(name="shop")

Open {base_url} in a browser to see its contents. Press Ctrl-C to stop it.
"""


def local(typed: Namespace) -> int:
    """Serve until a signal arrives.

    Args:
        typed: the parsed arguments of the command.

    Returns:
        The exit code. A signal is the normal way to end, and counts as success.

    Raises:
        UsageError: the gateway does not accept its settings.
    """
    try:
        data_dir = Path(typed.data_dir).expanduser().absolute()
    except RuntimeError:
        raise UsageError(f"there is no home directory for {typed.data_dir}: give another --data-dir") from None
    try:
        gateway = LocalGateway(
            data_dir,
            host=typed.host,
            port=typed.port,
            public_url=typed.public_url,
            postgres_dsn=typed.postgres_dsn,
            postgres_bin=typed.postgres_bin,
            s3_endpoint=typed.s3_endpoint,
            allow_hosts=typed.allow_host,
        )
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        asyncio.run(_serve(gateway, data_dir, typed))
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        complain(f"{error.strerror}{where}" if error.strerror else str(error))
        return Exit.FAILED
    except (DirectoryInUse, _Unavailable) as error:
        complain(str(error))
        return Exit.FAILED
    return Exit.OK


class _Unavailable(Exception):
    """What an option asked for cannot be had."""


async def _serve(gateway: LocalGateway, data_dir: Path, typed: Namespace) -> None:
    with cancel_on_signals(gateway.hurry):
        try:
            async with gateway:
                fault = await gateway.database_fault()
                _check_options(typed, fault)
                _announce(gateway, data_dir, shared=typed.postgres_dsn is not None, fault=fault)
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            return


def _check_options(typed: Namespace, fault: str | None) -> None:
    """End the command if the Postgres that the user asked for cannot be had: another one is not what was meant."""
    for option, given in (("--postgres-dsn", typed.postgres_dsn), ("--postgres-bin", typed.postgres_bin)):
        if fault is not None and given is not None:
            raise _Unavailable(fault if option in fault else f"{option}: {fault}")


def _announce(gateway: LocalGateway, data_dir: Path, *, shared: bool, fault: str | None) -> None:
    """Say how to reach the gateway, and whether databases work: now, and not at the user's first database call."""
    ways_in = {"base_url": gateway.base_url, "api_key": gateway.api_key}
    if on_terminal():
        place = f"the Postgres of --postgres-dsn, its port in {data_dir}" if shared else data_dir
        print(_SCREEN.format(**ways_in, place=place), flush=True)
    else:
        write_json(ways_in if fault is None else ways_in | {"postgres": False})
    if fault is not None:
        complain(f"all but databases works: {fault}")
    elif on_terminal():
        note("Postgres is ready.")
