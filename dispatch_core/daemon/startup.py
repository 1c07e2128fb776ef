"""How the daemon was started, and how it tells whoever started it that it is ready."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatch_core.daemon.paths import READY_FD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_core.daemon.paths import Paths


SERVICE_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")  # of systemd


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How this daemon was started. env: the environment it was started with, for what it starts in turn."""

    paths: Paths
    env: Mapping[str, str]
    offline: bool
    safe: bool


class ReadyPipe:
    """The pipe on which whoever started us waits for one line: ready, or the error that ended us."""

    def __init__(self, env: Mapping[str, str]) -> None:
        descriptor = env.get(READY_FD, "")
        self._descriptor = int(descriptor) if descriptor.isdigit() else None
        if self._descriptor is not None:
            os.set_inheritable(self._descriptor, False)

    def say(self, message: dict[str, Any]) -> None:
        """Write the line; only the first one counts."""
        if self._descriptor is None:
            return
        with suppress(OSError):
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
        os.close(self._descriptor)
        self._descriptor = None
