"""The ``peewee`` storage plugin: everything dispatch remembers, in one SQLite file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_core.api import hookimpl
from dispatch_plugins.registry.backend import PeeweeStorage

if TYPE_CHECKING:
    from pathlib import Path

    from dispatch_core.api import PluginSettings, Storage


@hookimpl
def dispatch_storage(settings: PluginSettings, data_dir: Path) -> Storage:  # noqa: ARG001 -- the hook's signature
    """Return the registry kept in ``registry.db`` in data_dir, not yet opened."""
    return PeeweeStorage(data_dir)
