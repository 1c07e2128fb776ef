"""The two configuration files: where they are, and what their tables for threads say."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from dispatch_core.config.keys import DEFAULTS, INSTRUCTIONS, KEYS, PRESETS, check_value
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import ValidationFailed
from dispatch_core.settings import parse, read_bytes

FOLDER = ".dispatch"
FILE = "config.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """One file, read once.

    root: the directory that relative paths start from; for a project, the project. defaults and presets: values by key, with
    absolute paths and the table ``instructions`` flattened. others: the remaining tables. content: as it was read.
    """

    kind: Literal["user", "project"]
    path: Path
    root: Path
    content: bytes
    defaults: Mapping[str, Any] = field(default_factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the configuration of one user is. home: the dispatch home. user: the file of the user."""

    home: Path
    user: Path

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Places:
        """Return the places that the environment asks for."""
        paths = Paths.from_env(env)
        return cls(home=Path(paths.home), user=Path(paths.config))

    @property
    def trust(self) -> Path:
        """The file in which trust is kept."""
        return self.home / "trust.json"

    @property
    def user_root(self) -> Path:
        """Where relative paths in the user's file start: the directory of the home, ``~`` for ``~/.dispatch``."""
        return self.home.parent if self.user.parent == self.home else self.user.parent

    def project(self, cwd: Path) -> Path | None:
        """Return the nearest ``.dispatch/config.toml`` at or above a directory that is not the user's own.

        The directory is followed through links first, so that a project has one path and trust in it one place.
        """
        cwd = Path(os.path.realpath(cwd))
        ours = (self.user, self.home / FILE, Path.home() / FOLDER / FILE)
        own = {os.path.realpath(path) for path in ours}
        for directory in (cwd, *cwd.parents):
            candidate = directory / FOLDER / FILE
            if _exists(candidate) and os.path.realpath(candidate) not in own:
                return candidate
        return None


def read_user(places: Places) -> ConfigFile:
    """Return the user's file; a missing one is empty. Raises ValidationFailed naming file and key."""
    return _read("user", places.user, places.user_root)


def read_project(path: Path) -> ConfigFile:
    """Return a project's file. Raises ValidationFailed naming file and key."""
    return _read("project", path, path.parent.parent)


def similar(word: str, candidates: Any) -> str:
    """Return "did you mean A or B? " for a mistyped word, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 -- for memory: only mistakes need it

    near = get_close_matches(word, list(candidates), n=3)
    return f"did you mean {' or '.join(near)}? " if near else ""


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a directory that may not be searched has nothing for us
        return False


def _read(kind: Literal["user", "project"], path: Path, root: Path) -> ConfigFile:
    content = read_bytes(path)
    if content is None:
        return ConfigFile(kind=kind, path=path, root=root, content=b"")
    tables = parse(path, content)
    defaults = tables.get(DEFAULTS, {})
    presets = tables.get(PRESETS, {})
    for name, value in tables.items():
        if not isinstance(value, Mapping):
            raise _wrong(path, name, "must be a table")
    found = _Reader(kind, path, root)
    return ConfigFile(
        kind=kind,
        path=path,
        root=root,
        content=content,
        defaults=found.values(DEFAULTS, defaults),
        presets={name: found.values(f"{PRESETS}.{name}", table) for name, table in presets.items()},
        others={name: table for name, table in tables.items() if name not in (DEFAULTS, PRESETS)},
    )


@dataclass(frozen=True, slots=True)
class _Reader:
    kind: Literal["user", "project"]
    path: Path
    root: Path

    def values(self, table: str, given: Any) -> dict[str, Any]:
        if not isinstance(given, Mapping):
            raise _wrong(self.path, table, "must be a table")
        flat = self._flat(table, given)
        for name, value in flat.items():
            where = f"{self.path}: {table}."
            hint = f"{similar(name, KEYS) if name not in KEYS else ''}mend {self.path}"
            check_value(where, name, value, hint=hint)
            if KEYS[name].path:
                flat[name] = self._absolute(value)
        access = [name for name in KEYS["permissions"].replaces if name in flat]
        if "permissions" in flat and access:
            raise _wrong(
                self.path,
                f"{table}.permissions",
                f"cannot stand beside {access[0]}: a permission profile replaces it",
            )
        return flat

    def _flat(self, table: str, given: Mapping[str, Any]) -> dict[str, Any]:
        flat = {name: value for name, value in given.items() if name != INSTRUCTIONS}
        inner = given.get(INSTRUCTIONS, {})
        if not isinstance(inner, Mapping):
            raise _wrong(self.path, f"{table}.{INSTRUCTIONS}", "must be a table")
        for name, value in inner.items():
            if name not in KEYS or not KEYS[name].instructions:
                allowed = ", ".join(key.name for key in KEYS.values() if key.instructions)
                raise _wrong(
                    self.path, f"{table}.{INSTRUCTIONS}.{name}", f"is no key; there are {allowed}"
                )
            flat.setdefault(name, value)
        return flat

    def _absolute(self, value: str) -> str:
        # ~ is the user's: in a project's file it would be a way to name files of whoever reads it.
        if self.kind == "user" and (value == "~" or value.startswith("~/")):
            value = str(Path.home()) + value[1:]
        return os.path.normpath(self.root / value)


def _wrong(path: Path, where: str, what: str) -> ValidationFailed:
    return ValidationFailed(
        f"{path}: {where}: {what}", hint=f"mend {path}", details={"key": where, "path": str(path)}
    )
