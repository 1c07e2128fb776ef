"""The built-in registry and the example in memory keep the same promises."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dispatch_core.api import PluginSettings, Storage, ValidationFailed
from dispatch_core.testing.storage import OpenStorage, StorageConformance
from dispatch_plugins.registry import plugin as peewee_plugin

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

MEMORY_EXAMPLE = Path(__file__).parents[2] / "plugins" / "examples" / "dispatch-memory-storage"


class NoSettings:
    def section(self, name, model):
        raise ValidationFailed(f"no table [{name}] was expected to be read")


NO_SETTINGS: PluginSettings = NoSettings()


class TestPeeweeStorage(StorageConformance):
    durable = True

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> OpenStorage:
        async def open_storage(stack: AsyncExitStack) -> Storage:
            storage = peewee_plugin.dispatch_storage(NO_SETTINGS, tmp_path)
            await storage.open(stack)
            return storage

        return open_storage


class TestMemoryStorage(StorageConformance):
    durable = False

    @pytest.fixture
    def open_storage(self, monkeypatch: pytest.MonkeyPatch) -> OpenStorage:
        monkeypatch.syspath_prepend(str(MEMORY_EXAMPLE))
        memory_plugin = importlib.import_module("dispatch_memory_storage")

        async def open_storage(stack: AsyncExitStack) -> Storage:
            storage: Storage = memory_plugin.dispatch_storage()
            await storage.open(stack)
            return storage

        return open_storage
