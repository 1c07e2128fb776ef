"""Every key of the configuration with its value, and with every place that has a say in it."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import date, time
from typing import TYPE_CHECKING, Any

from dispatch_core.config.files import similar
from dispatch_core.config.keys import DEFAULTS, KEYS, PRESETS
from dispatch_core.config.layers import Candidate, Configuration, Fate
from dispatch_core.errors import NotFound
from dispatch_core.settings import SECTIONS, Settings
from dispatch_core.switches import safe_mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BUILT_IN, CODEX = "built-in", "codex"
CODEX_BIN = "DISPATCH_CODEX_BIN"
PLUGINS_DISABLE = "DISPATCH_PLUGINS_DISABLE"
SAFE = "DISPATCH_SAFE"
PLUGINS = "plugins"


@dataclass(frozen=True, slots=True, kw_only=True)
class Say:
    """What one place says about a key, and what became of it."""

    source: str
    value: Any
    fate: str
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "source": self.source,
            "value": self.value,
            "fate": self.fate,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One key. value: the one that counts; source: where it is from, "codex" when it is left to Codex."""

    key: str
    value: Any
    source: str
    says: tuple[Say, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "key": self.key,
            "value": self.value,
            "source": self.source,
            "layers": [say.to_dict() for say in self.says],
        }


def explain(
    configuration: Configuration,
    env: Mapping[str, str],
    *,
    cwd: str | None = None,
    presets: Sequence[str] = (),
) -> list[Explained]:
    """Return every key of the sections, of what a thread starts with in cwd, and of every preset.

    Raises ValidationFailed naming file and key for what is wrong in the user's file.
    """
    settings = Settings(configuration.user.path, configuration.user.others)
    rows = [
        _section(configuration, settings, env, name, known.name)
        for name, model in SECTIONS.items()
        for known in fields(model)
    ]
    builtin = {"ephemeral": False} if cwd is None else {"ephemeral": False, "cwd": cwd}
    resolved = configuration.resolve(presets=presets, builtin=builtin)
    rows += [_key(DEFAULTS, name, resolved.candidates) for name in KEYS]
    for preset in configuration.presets():
        found = configuration.preset(preset).candidates
        named = [name for name in KEYS if any(one.key == name for one in found)]
        rows += [_key(f"{PRESETS}.{preset}", name, found) for name in named]
    return rows


def pick(rows: Sequence[Explained], key: str) -> Explained:
    """Return the row of a key; a key of a thread can be named without ``defaults``. Raises NotFound with near misses."""
    by_name = {row.key: row for row in rows}
    found = by_name.get(key) or by_name.get(f"{DEFAULTS}.{key}")
    if found is not None:
        return found
    head, _, name = key.rpartition(".")
    of_preset = head.startswith(f"{PRESETS}.") and any(r.key.startswith(f"{head}.") for r in rows)
    if of_preset and name in KEYS:
        return Explained(key=key, value=None, source=CODEX, says=())
    names = [*by_name, *KEYS]
    raise NotFound(
        f"the configuration has no key {key!r}",
        hint=f"{similar(key, names)}dispatch config explain lists the keys",
        details={"key": key},
    )


def _key(table: str, name: str, candidates: Sequence[Candidate]) -> Explained:
    found = [one for one in candidates if one.key == name]
    used = next((one for one in found if one.fate is Fate.USED), None)
    return Explained(
        key=f"{table}.{name}",
        value=None if used is None else used.value,
        source=CODEX if used is None else str(used.source),
        says=tuple(
            Say(source=str(one.source), value=one.value, fate=one.fate.value, reason=one.reason)
            for one in found
        ),
    )


def _section(
    configuration: Configuration, settings: Settings, env: Mapping[str, str], table: str, name: str
) -> Explained:
    says = [Say(source=BUILT_IN, value=_plain(getattr(SECTIONS[table](), name)), fate=Fate.USED)]
    given = configuration.user.others.get(table, {})
    if name in given:
        value = _plain(getattr(settings.section(table, SECTIONS[table]), name))
        off = table == PLUGINS and safe_mode(env)
        fate, reason = (Fate.IGNORED, f"{SAFE} leaves [plugins] out") if off else (Fate.USED, None)
        source = f"user config {configuration.user.path}"
        says.append(Say(source=source, value=value, fate=fate, reason=reason))
    winner = [say for say in says if say.fate == Fate.USED][-1]
    extra = _environment(table, name, env, winner)
    if extra is not None and extra.fate == Fate.USED:
        winner = extra
    says = [_beaten(say, winner) for say in says]
    says += [extra] if extra is not None else []
    says += _of_project(configuration, table, name)
    return Explained(
        key=f"{table}.{name}", value=winner.value, source=winner.source, says=tuple(says)
    )


def _environment(table: str, name: str, env: Mapping[str, str], before: Say) -> Say | None:
    """Return what the environment says about a key. before: what counts without it."""
    if (table, name) == ("codex", "bin") and env.get(CODEX_BIN):
        configured = before.source != BUILT_IN
        return Say(
            source=f"environment {CODEX_BIN}",
            value=env[CODEX_BIN],
            fate=Fate.OVERRIDDEN if configured else Fate.USED,
            reason="the configuration comes first" if configured else None,
        )
    if (table, name) == (PLUGINS, "disable") and env.get(PLUGINS_DISABLE):
        patterns = [part.strip() for part in env[PLUGINS_DISABLE].split(",") if part.strip()]
        return Say(
            source=f"environment {PLUGINS_DISABLE}",
            value=[*before.value, *patterns],
            fate=Fate.USED,
            reason="it adds to the configuration",
        )
    return None


def _of_project(configuration: Configuration, table: str, name: str) -> list[Say]:
    if configuration.project is None:
        return []
    given = configuration.project.others.get(table, {})
    if name not in given:
        return []
    source = f"project config {configuration.project.path}"
    reason = "read from the user's configuration alone"
    return [Say(source=source, value=_plain(given[name]), fate=Fate.IGNORED, reason=reason)]


def _beaten(say: Say, winner: Say) -> Say:
    if say.fate != Fate.USED or say is winner:
        return say
    return replace(say, fate=Fate.OVERRIDDEN, reason=f"{winner.source} comes later")


def _plain(value: Any) -> Any:
    """Return a value of the configuration as JSON."""
    if is_dataclass(value):
        return {known.name: _plain(getattr(value, known.name)) for known in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return value.isoformat() if isinstance(value, date | time) else value
