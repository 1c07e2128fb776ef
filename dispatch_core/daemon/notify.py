"""What a service manager is told, in systemd's protocol: ready, alive, stopping. Nothing without NOTIFY_SOCKET."""

from __future__ import annotations

import logging
import os
import socket
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager that the environment names; a manager that cannot be told is no reason to fail."""

    def __init__(self, env: Mapping[str, str]) -> None:
        address, pid = env.get("NOTIFY_SOCKET", ""), env.get("WATCHDOG_PID", "")
        usec = env.get("WATCHDOG_USEC", "")
        # A name that begins with @ is an abstract one, whose first byte is zero.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        ours = pid in ("", str(os.getpid()))
        self._interval = int(usec) / 2e6 if ours and usec.isdecimal() and int(usec) else None

    async def run(self) -> None:
        """Say that we are ready and, if the manager watches us, go on saying that the event loop runs, until cancelled."""
        self._say("READY=1")
        while self._address and self._interval is not None:
            await anyio.sleep(self._interval)
            self._say("WATCHDOG=1")

    def stopping(self) -> None:
        """Say that we are about to stop."""
        self._say("STOPPING=1")

    def _say(self, state: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("the service manager was not told %s: %s", state, error)
