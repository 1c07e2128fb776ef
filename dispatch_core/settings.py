"""The configuration file: ``config.toml`` in the dispatch home, ours and the plugins' tables.

pydantic checks what a table says. It is imported when there is something to check, for the daemon's socket waits for this module.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime  # noqa: TC003 -- pydantic reads it
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from dispatch_core.errors import ValidationFailed
from dispatch_core.switches import safe_mode

if TYPE_CHECKING:
    from collections.abc import Mapping

M = TypeVar("M")
SIZE_LIMIT = 1 << 20
LEAST = "least"  # metadata of a field: the smallest value it takes
PROJECT = "project"  # metadata of a field: what a project's own configuration may do with it
NEVER = {PROJECT: "never-from-project"}
STRICT = {"extra": "forbid"}  # unknown keys are errors


@dataclass(frozen=True, slots=True, kw_only=True)
class CodexSection:
    """``[codex]``: the binary dispatch drives.

    bin: path of the codex binary; otherwise it is searched for.
    """

    __pydantic_config__: ClassVar = STRICT
    bin: str | None = field(default=None, metadata=NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSection:
    """``[storage]``: where the registry lives.

    backend: name of the storage plugin.
    """

    __pydantic_config__: ClassVar = STRICT
    backend: str = field(default="peewee", metadata=NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSection:
    """``[daemon]``: how the daemon behaves.

    grace: seconds to wait for running turns when stopping. log_bytes: size of the log at which it is rotated.
    """

    __pydantic_config__: ClassVar = STRICT
    grace: float = field(default=30.0, metadata={LEAST: 0, **NEVER})
    log_bytes: int = field(default=5_000_000, metadata={LEAST: 10_000, **NEVER})


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginsSection:
    """``[plugins]``: which installed plugins are used.

    disable: patterns of plugin or distribution names to leave out. mode: "listed" uses, of third-party plugins, only what matches
    a pattern of enable.
    """

    __pydantic_config__: ClassVar = STRICT
    disable: tuple[str, ...] = field(default=(), metadata=NEVER)
    mode: Literal["all", "listed"] = field(default="all", metadata=NEVER)
    enable: tuple[str, ...] = field(default=(), metadata=NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowRule:
    """``[[policy.allow]]``: a command that runs without asking, in threads that have no sandbox (danger-full-access).

    argv: the words a command begins with. cwd: it runs in this directory or below. expires: until when, with a time zone.
    thread: only in the thread with this ref or id.
    """

    __pydantic_config__: ClassVar = STRICT
    argv: tuple[str, ...]
    cwd: str
    expires: datetime
    thread: str | None = None

    def __post_init__(self) -> None:
        if not self.argv or not all(self.argv):
            raise ValueError("argv needs at least one word, and no empty one")
        if not Path(self.cwd).expanduser().is_absolute():
            raise ValueError("cwd must be an absolute path")
        if self.expires.tzinfo is None:
            raise ValueError("expires needs a time zone, as in 2026-01-31T18:00:00Z")
        if self.thread is not None and (not self.thread or self.thread.startswith("@")):
            raise ValueError("thread must be a ref or an id: a handle can become another thread's")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySection:
    """``[policy]``: what callers may do, and who answers what Codex asks.

    allow_attached_writes: whether threads that somebody else made may be written once they are attached. requests: what Codex
    asks in our own threads goes to a person ("attention") or is declined at once ("deny"). attached_requests: the same for
    threads that somebody else made. request_timeout: seconds until a request that nobody has answered is declined. allow:
    commands that run without asking, in either.
    """

    __pydantic_config__: ClassVar = STRICT
    allow_attached_writes: bool = field(default=False, metadata=NEVER)
    requests: Literal["attention", "deny"] = field(default="attention", metadata=NEVER)
    attached_requests: Literal["attention", "deny"] = field(default="deny", metadata=NEVER)
    request_timeout: float = field(default=300.0, metadata={LEAST: 1, **NEVER})
    allow: tuple[AllowRule, ...] = field(default=(), metadata=NEVER)


SECTIONS: Mapping[str, type] = {
    "codex": CodexSection,
    "storage": StorageSection,
    "daemon": DaemonSection,
    "plugins": PluginsSection,
    "policy": PolicySection,
}


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
        content = read_bytes(path)
        return cls(path, {} if content is None else parse(path, content))

    def section(self, name: str, model: type[M]) -> M:
        """Return the table ``[name]``, validated with model, a pydantic model or a dataclass; an absent table is an empty one."""
        table = self._tables.get(name, {})
        if not table and name in SECTIONS:
            return model()
        # Imported for start-up: most homes have no configuration.
        from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415

        try:
            found = TypeAdapter(model).validate_python(table)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join([name, *map(str, first["loc"])])
            raise self._wrong(where, first["msg"]) from error
        for known in fields(model) if is_dataclass(model) else ():
            least = known.metadata.get(LEAST)
            if least is not None and not getattr(found, known.name) >= least:
                raise self._wrong(f"{name}.{known.name}", f"must be at least {least}")
        return found

    def _wrong(self, where: str, what: str) -> ValidationFailed:
        return ValidationFailed(
            f"{self.path}: {where}: {what}", hint=f"mend {self.path}", details={"key": where}
        )


def read_bytes(path: Path) -> bytes | None:
    """Return what a configuration file holds, None when there is none. Raises ValidationFailed naming the file."""
    try:
        if not S_ISREG(path.stat().st_mode):  # to read a pipe would wait for ever
            raise ValidationFailed(f"{path} is not a file", hint="mend the file or move it away")
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ValidationFailed(
            f"cannot read {path}: {error.strerror}", hint="mend the file or move it away"
        ) from error
    if len(data) > SIZE_LIMIT:
        raise ValidationFailed(f"{path} is larger than {SIZE_LIMIT} bytes", hint="move it away")
    return data


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """Return the tables of a configuration. Raises ValidationFailed naming the file, and line and column."""
    # Imported for start-up: most homes have no configuration.
    import tomllib  # noqa: PLC0415

    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValidationFailed(f"{path} is not valid TOML: {error}", hint=f"mend {path}") from error


class PluginSwitches:
    """``[plugins]`` together with the DISPATCH_* switches of the environment."""

    def __init__(self, settings: Settings, env: Mapping[str, str], *, safe: bool = False) -> None:
        self.safe = safe or safe_mode(env)
        # Safe mode must work with a broken configuration as well.
        section = PluginsSection() if self.safe else settings.section("plugins", PluginsSection)
        extra = env.get("DISPATCH_PLUGINS_DISABLE", "")
        self.disable = (*section.disable, *filter(None, (p.strip() for p in extra.split(","))))
        self.mode = section.mode
        self.enable = section.enable
