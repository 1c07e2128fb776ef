"""What a person does to the registry by hand: look at it, copy it, bring it up to date. No daemon is needed.

The daemon never asks for it, so each piece of work is imported when it is done: the daemon's socket waits for this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dispatch_core.api import MigrationReport
    from dispatch_plugins.registry.inspection import FileReport
    from dispatch_plugins.registry.restoring import RestorePlan


class PeeweeMaintenance:
    """The Maintenance of the registry at path, with a search index that can always be built anew.

    Blocking. busy_timeout: seconds to wait for a lock that another process holds.
    """

    def __init__(self, path: Path, index: Path, busy_timeout: float) -> None:
        self._path = path
        self._index = index
        self._busy_timeout = busy_timeout

    def check(self) -> FileReport:
        """Look at the registry and change nothing, not even side files where that can be avoided."""
        from dispatch_plugins.registry.inspection import inspect  # noqa: PLC0415 -- see above

        return inspect(self._path, self._index)

    def backup(self, target: Path | None = None) -> Path:
        """Write a complete, private copy and return its path; target may be a folder. Raises StorageError."""
        from dispatch_plugins.registry.upkeep import back_up  # noqa: PLC0415 -- see above

        return back_up(self._path, target)

    def migrate(self, *, backup: bool = True) -> MigrationReport:
        """Bring the registry to the schema of this build, all or nothing. Raises StorageError."""
        from dispatch_plugins.registry.upkeep import migrate  # noqa: PLC0415 -- see above

        return migrate(self._path, backup=backup, busy_timeout=self._busy_timeout)

    def plan_restore(self, source: Path | None = None) -> RestorePlan:
        """Return what a restore would do, by default from the newest good backup, and change nothing. Raises StorageError."""
        from dispatch_plugins.registry.restoring import plan  # noqa: PLC0415 -- see above

        return plan(self._path, source)

    def restore(self, plan: RestorePlan) -> None:
        """Put the backup of a plan in the place of the registry and keep what was there aside. Raises StorageError."""
        from dispatch_plugins.registry.restoring import restore  # noqa: PLC0415 -- see above

        restore(self._path, plan)
