"""Run the offline model alone: ``python -m dispatch_core.offline --port 8765 --log FILE``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

import anyio

from dispatch_core.offline.model import HOST, OfflineModel

PORT_MAX = 65535


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; once requests are accepted, {"port": N} is on standard output.

    Returns the exit status: 0 after a signal, 1 if the port cannot be bound.
    """
    options = _parse(argv)
    return anyio.run(_serve, OfflineModel(log=options.log, port=options.port), options.port)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dispatch_core.offline",
        description="A loopback stand-in for the language model. It prints its port as JSON.",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=0,
        help="the port on 127.0.0.1; 0, the default, takes a free one",
    )
    parser.add_argument("--log", type=Path, help="append every request to this file, as JSON lines")
    return parser.parse_args(argv)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= PORT_MAX:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to {PORT_MAX}")
    return port


async def _serve(model: OfflineModel, wanted: int) -> int:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:
            try:
                port = await group.start(model.serve)
            except OSError as error:
                sys.stderr.write(
                    f"the offline model cannot listen on {HOST}:{wanted}: {error}; try --port 0\n"
                )
                return 1
            sys.stdout.write(json.dumps({"port": port}) + "\n")
            sys.stdout.flush()
            async for _ in signals:
                group.cancel_scope.cancel()
                break
    return 0


if __name__ == "__main__":
    sys.exit(main())
