"""Which value counts: built-ins, the user's file, the project's, presets in the order given, options; the later one wins.

Nothing is dropped silently: every value that was found is a candidate, with what became of it and why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from dispatch_core.config.files import ConfigFile, Places, read_project, read_user, similar
from dispatch_core.config.keys import ACCESS, DEFAULTS, KEYS, PRESETS, Key, ProjectClass
from dispatch_core.config.trust import Bundle, Trust, TrustStore, bundle_of, is_foreign
from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class Fate(StrEnum):
    """What became of a value. OVERRIDDEN: a later one counts. IGNORED: it may not count where it stands."""

    USED = "used"
    OVERRIDDEN = "overridden"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a value stands. trusted: it is in a project's file, and counts because that file is trusted."""

    kind: Literal["built-in", "user", "project", "option"]
    path: str | None = None
    preset: str | None = None
    trusted: bool = False

    def __str__(self) -> str:
        if self.path is None:
            return self.kind
        mark = " (trusted)" if self.trusted else ""
        if self.preset is not None:
            return f"preset {self.preset} in {self.path}{mark}"
        return f"{self.kind} config {self.path}{mark}"

    @property
    def table(self) -> str:
        """The table it stands in."""
        return f"{PRESETS}.{self.preset}" if self.preset is not None else DEFAULTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One value that was found. content: of the file it names, when that was read and found trusted already."""

    key: str
    value: Any
    source: Source
    fate: Fate = Fate.USED
    reason: str | None = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Every value that was found, in order of layer, and remarks on what was passed over."""

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]

    def used(self) -> dict[str, Candidate]:
        """Return the values that count, by key."""
        return {found.key: found for found in self.candidates if found.fate is Fate.USED}


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """Both files as they are now. trust and bundle: of the project's; None without one."""

    user: ConfigFile
    project: ConfigFile | None = None
    trust: Trust | None = None
    bundle: Bundle | None = None

    @classmethod
    def read(cls, places: Places, cwd: Path | None) -> Configuration:
        """Return the configuration for a directory; None: the user's alone. Blocking.

        Raises ValidationFailed naming the file, and the key when one is wrong.
        """
        user = read_user(places)
        path = places.project(cwd) if cwd is not None else None
        if path is None:
            return cls(user=user)
        if is_foreign(path):  # not even looked at: it need not be TOML
            project = ConfigFile(kind="project", path=path, root=path.parent.parent, content=b"")
            return cls(user=user, project=project, trust=Trust.FOREIGN)
        project = read_project(path)
        bundle = bundle_of(project)
        return cls(
            user=user,
            project=project,
            trust=TrustStore(places.trust).state(bundle),
            bundle=bundle,
        )

    @property
    def files(self) -> tuple[ConfigFile, ...]:
        """The files in order of layer."""
        return (self.user,) if self.project is None else (self.user, self.project)

    def presets(self) -> list[str]:
        """Return the names of all presets."""
        return sorted({name for file in self.files for name in file.presets})

    def resolve(
        self,
        *,
        presets: Sequence[str] = (),
        builtin: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Resolved:
        """Return which values count. Raises ValidationFailed for a preset that is in no file."""
        merge = _Merge(self)
        merge.layer(builtin or {}, Source(kind="built-in"))
        for file in self.files:
            merge.layer(file.defaults, Source(kind=file.kind, path=str(file.path)))
        for name in presets:
            self._known(name)
            for file in self.files:
                source = Source(kind=file.kind, path=str(file.path), preset=name)
                merge.layer(file.presets.get(name, {}), source)
        merge.layer(options or {}, Source(kind="option"))
        return Resolved(candidates=tuple(merge.found), notes=tuple(self._notes(merge.found)))

    def preset(self, name: str) -> Resolved:
        """Return what one preset says by itself. Raises ValidationFailed when it is in no file."""
        self._known(name)
        merge = _Merge(self)
        for file in self.files:
            source = Source(kind=file.kind, path=str(file.path), preset=name)
            merge.layer(file.presets.get(name, {}), source)
        return Resolved(candidates=tuple(merge.found), notes=tuple(self._notes(merge.found)))

    def refusal(self, key: Key, value: Any) -> str | None:
        """Return why a value of the project's file does not count, or None."""
        if self.project is None:
            return None
        project_class = key.classify(value, self.project.root)
        if project_class is ProjectClass.SAFE:
            return None
        if project_class is ProjectClass.TRUST:
            return self._distrust()
        if key.outside is ProjectClass.NEVER:
            return "a project's configuration names files of the project alone"
        if key.safe_values:
            return f"a project's configuration can only set it to {', '.join(key.safe_values)}"
        return "a project's configuration cannot set it"

    def _distrust(self) -> str | None:
        if self.trust is Trust.TRUSTED or self.project is None:
            return None
        state = "has changed since it was trusted"
        if self.trust is Trust.UNTRUSTED:
            state = "is not trusted"
        return f"the file {state}; dispatch config trust {self.project.path} shows it"

    def _known(self, name: str) -> None:
        known = self.presets()
        if name in known:
            return
        files = " or ".join(str(file.path) for file in self.files)
        there = f"there are {', '.join(known)}" if known else "there is none"
        raise ValidationFailed(
            f"there is no preset {name!r} in {files}: {there}",
            hint=f"{similar(name, known)}[presets.{name}] in {self.user.path} makes one",
            details={"field": "preset", "preset": name, "known": known},
        )

    def _notes(self, found: Sequence[Candidate]) -> Iterator[str]:
        if self.project is None:
            return
        path = self.project.path
        if self.trust is Trust.FOREIGN:
            yield f"{path} is ignored: it belongs to another user"
        if self.project.others:
            names = ", ".join(f"[{name}]" for name in self.project.others)
            yield f"{path}: {names} ignored: read from the user's configuration alone"
        reasons: dict[str, list[str]] = {}
        for one in found:
            if one.fate is Fate.IGNORED and one.reason is not None:
                reasons.setdefault(one.reason, []).append(f"{one.source.table}.{one.key}")
        for reason, keys in reasons.items():
            yield f"{path}: {', '.join(keys)} ignored: {reason}"


def brief(source: str, files: Mapping[str, str]) -> str:
    """Return a source with the paths of files replaced by what they are, for a table. files: path by kind."""
    for kind, path in files.items():
        source = source.replace(f" in {path} (trusted)", f" ({kind}, trusted)")
        source = source.replace(f" in {path}", f" ({kind})")
        source = source.replace(f"{kind} config {path}", f"{kind} config")
    return source


class _Merge:
    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self.found: list[Candidate] = []

    def layer(self, values: Mapping[str, Any], source: Source) -> None:
        """Put one layer on top of the ones before."""
        beaten = {
            key.beats for key in map(KEYS.__getitem__, values) if key.beats and key.beats in values
        }
        for name, key in KEYS.items():
            value = values.get(name)
            if value is None:
                continue
            one = Candidate(key=name, value=value, source=source)
            if source.kind == "project":
                one = self._of_project(one, key)
            if one.fate is Fate.USED and name in beaten:
                reason = "text in the same place comes before a file"
                one = replace(one, fate=Fate.OVERRIDDEN, reason=reason)
            if one.fate is Fate.USED:
                self._override(one, key, values)
            self.found.append(one)

    def _of_project(self, one: Candidate, key: Key) -> Candidate:
        configuration = self._configuration
        reason = configuration.refusal(key, one.value)
        if reason is None and key.name in ACCESS and (profile := self._counts("permissions")):
            reason = f"a project's configuration cannot replace the permissions {profile.value}"
        if reason is not None or configuration.project is None or configuration.bundle is None:
            return replace(one, fate=Fate.IGNORED, reason=reason)
        needed_trust = key.classify(one.value, configuration.project.root) is not ProjectClass.SAFE
        content = configuration.bundle.parts.get(one.value) if key.path == "file" else None
        return replace(one, source=replace(one.source, trusted=needed_trust), content=content)

    def _override(self, one: Candidate, key: Key, layer: Mapping[str, Any]) -> None:
        for index, before in enumerate(self.found):
            if before.fate is not Fate.USED:
                continue
            if before.key == one.key:
                reason = f"{one.source} comes later"
            elif before.key in key.replaces and not (
                before.source == one.source and before.key in layer
            ):
                reason = f"{one.key} in {one.source} replaces it"
            else:
                continue
            self.found[index] = replace(before, fate=Fate.OVERRIDDEN, reason=reason)

    def _counts(self, name: str) -> Candidate | None:
        return next((c for c in self.found if c.key == name and c.fate is Fate.USED), None)
