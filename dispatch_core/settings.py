"""The configuration file: ``config.toml`` in the dispatch home, ours and the plugins' tables."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 -- pydantic reads it
from pathlib import Path
from stat import S_ISREG
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dispatch_core.errors import ValidationFailed

M = TypeVar("M", bound=BaseModel)
SIZE_LIMIT = 1 << 20
TRUTHY = frozenset({"1", "true", "yes", "on"})


class Section(BaseModel):
    """Base of our own tables: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class CodexSection(Section):
    """``[codex]``: the binary dispatch drives."""

    bin: str | None = Field(
        default=None, description="Path of the codex binary; otherwise it is searched for."
    )


class StorageSection(Section):
    """``[storage]``: where the registry lives."""

    backend: str = Field(default="peewee", description="Name of the storage plugin.")


class DaemonSection(Section):
    """``[daemon]``: how the daemon behaves."""

    grace: float = Field(
        default=30.0, ge=0, description="Seconds to wait for running turns when stopping."
    )
    log_bytes: int = Field(
        default=5_000_000, ge=10_000, description="Size of the log at which it is rotated."
    )


class PluginsSection(Section):
    """``[plugins]``: which installed plugins are used."""

    disable: tuple[str, ...] = Field(
        default=(), description="Patterns of plugin or distribution names to leave out."
    )
    mode: Literal["all", "listed"] = Field(
        default="all", description="listed: only what matches enable."
    )
    enable: tuple[str, ...] = Field(
        default=(), description="Patterns of third-party plugins to use in mode listed."
    )


class Settings:
    """The configuration, read once. Sections are validated when they are asked for, each by its owner."""

    def __init__(self, path: Path, tables: Mapping[str, Any]) -> None:
        self.path = path
        self._tables = tables

    @classmethod
    def read(cls, path: str | Path) -> Settings:
        """Return the configuration at path; a missing file is an empty one.

        Raises ValidationFailed naming the file, and line and column when the TOML is broken.
        """
        path = Path(path)
        try:
            if not S_ISREG(path.stat().st_mode):  # to read a pipe would wait for ever
                raise ValidationFailed(
                    f"{path} is not a file", hint="mend the file or move it away"
                )
            with path.open("rb") as file:
                data = file.read(SIZE_LIMIT + 1)
        except FileNotFoundError:
            return cls(path, {})
        except OSError as error:
            raise ValidationFailed(
                f"cannot read {path}: {error.strerror}", hint="mend the file or move it away"
            ) from error
        if len(data) > SIZE_LIMIT:
            raise ValidationFailed(f"{path} is larger than {SIZE_LIMIT} bytes", hint="move it away")
        # Imported for start-up: most homes have no configuration.
        import tomllib  # noqa: PLC0415

        try:
            return cls(path, tomllib.loads(data.decode("utf-8-sig")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValidationFailed(
                f"{path} is not valid TOML: {error}", hint=f"mend {path}"
            ) from error

    def section(self, name: str, model: type[M]) -> M:
        """Return the table ``[name]``, validated with model; an absent table is an empty one."""
        try:
            return model.model_validate(self._tables.get(name, {}))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join([name, *map(str, first["loc"])])
            raise ValidationFailed(
                f"{self.path}: {where}: {first['msg']}",
                hint=f"mend {self.path}",
                details={"key": where},
            ) from error


class PluginSwitches:
    """``[plugins]`` together with the DISPATCH_* switches of the environment."""

    def __init__(self, settings: Settings, env: Mapping[str, str], *, safe: bool = False) -> None:
        self.safe = safe or is_on(env.get("DISPATCH_SAFE"))
        self.strict = is_on(env.get("DISPATCH_STRICT_PLUGINS"))
        # Safe mode must work with a broken configuration as well.
        section = PluginsSection() if self.safe else settings.section("plugins", PluginsSection)
        extra = env.get("DISPATCH_PLUGINS_DISABLE", "")
        self.disable = (*section.disable, *filter(None, (p.strip() for p in extra.split(","))))
        self.mode = section.mode
        self.enable = section.enable


def is_on(value: str | None) -> bool:
    """Return whether an environment switch is set to 1, true, yes or on."""
    return (value or "").strip().lower() in TRUTHY
