"""A home with a configuration of its own and a project, both in real files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from dispatch_core.config.files import Places, read_project
from dispatch_core.config.layers import Configuration
from dispatch_core.config.trust import TrustStore, bundle_of

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Setup:
    """places: where things are. repo: the project's directory."""

    places: Places
    repo: Path

    @property
    def config(self):
        return self.repo / ".dispatch" / "config.toml"

    def user(self, text):
        self.places.home.mkdir(parents=True, exist_ok=True)
        self.places.user.write_text(text, encoding="utf-8")

    def project(self, text):
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(text, encoding="utf-8")

    def trust(self):
        bundle = bundle_of(read_project(self.config))
        return TrustStore(self.places.trust).add(bundle, datetime(2026, 1, 2, tzinfo=UTC))

    def read(self, cwd=None):
        return Configuration.read(self.places, cwd or self.repo)

    def resolve(self, *presets, **options):
        return self.read().resolve(presets=presets, options=options)

    def values(self, *presets, **options):
        return {key: one.value for key, one in self.resolve(*presets, **options).used().items()}


@pytest.fixture
def setup(tmp_path):
    repo = tmp_path.resolve() / "work" / "parser"
    repo.mkdir(parents=True)
    home = tmp_path.resolve() / "user" / ".dispatch"
    return Setup(Places(home=home, user=home / "config.toml"), repo)
