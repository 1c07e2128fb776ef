"""The file that names the running app-server, for a daemon that comes after one that was killed."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from dispatch_core import appserver
from dispatch_core.engine.clock import boot_id

if TYPE_CHECKING:
    from pathlib import Path

    from dispatch_core.contracts.deliveries import Epoch

log = logging.getLogger(__name__)


class CodexFile:
    """{pid, start_time, boot_id} of an app-server that may be alive. There is none while it is known that none is.

    That it cannot be written is logged and costs nothing else: only a daemon that finds the process orphaned would read it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, epoch: Epoch) -> None:
        """Name a process."""
        content = {"pid": epoch.pid, "start_time": epoch.start_time, "boot_id": epoch.boot_id}
        try:
            self._path.write_text(json.dumps(content), encoding="utf-8")
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)

    def remove(self) -> None:
        """Its process has ended and was reaped."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed: %s", self._path, error)

    async def end_predecessor(self, patience: float) -> None:
        """Wait until the process it names is gone, and kill its group after patience seconds.

        Two app-servers must not hold the same threads.
        """
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            pid, start_time = int(content["pid"]), content["start_time"]
            if content.get("boot_id", boot_id()) != boot_id():
                return
            outcome = await appserver.process.kill_predecessor(pid, start_time, patience=patience)
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            log.warning("%s is not readable and is ignored", self._path)
            return
        log.info("the former app-server, process %s: %s", pid, outcome.value)
