"""What a check finds, and all of them in order."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from dispatch_core import __version__
from dispatch_core.errors import DispatchError
from dispatch_core.switches import is_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from dispatch_core.daemon.paths import Paths

Status = Literal["ok", "warn", "fail"]
ORDER: Sequence[Status] = ("ok", "warn", "fail")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What one check found.

    summary: a sentence. detail: more of it. recovery: the next command or step, for what is not ok. data: JSON. fixed: what was
    done about it, before it was looked at again.
    """

    name: str
    status: Status
    summary: str
    detail: str | None = None
    recovery: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the check as JSON."""
        shown = {name: getattr(self, name) for name in self.__slots__}
        return {**shown, "data": dict(self.data), "fixed": list(self.fixed)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is looked at.

    manifest: as the command line started with it. cwd: where it was called, None when that is gone. probe: whether an app-server
    of its own may be started. timeout: seconds for everything that answers from another process.
    """

    paths: Paths
    env: Mapping[str, str]
    manifest: Mapping[str, Any]
    cwd: Path | None
    probe: bool = True
    timeout: float = 10.0

    @property
    def unlisted(self) -> bool:
        """Whether the list of commands could not be built, so that nothing is known of plugins."""
        return self.manifest.get("error") is not None

    @property
    def offline(self) -> bool:
        """Whether the environment asks for offline mode."""
        return is_on(self.env.get("DISPATCH_OFFLINE"))

    @property
    def codex_home(self) -> str:
        """Codex's home outside offline mode."""
        return self.env.get("CODEX_HOME") or os.path.join(os.path.expanduser("~"), ".codex")


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A check, and what may safely be done about what it finds.

    look: returns what was found. fix: mends what it can and returns what it did, in sentences; None when nothing is safe.
    """

    name: str
    look: Callable[[Subject], Check]
    fix: Callable[[Subject], Sequence[str]] | None = None


def examine(subject: Subject, examinations: Iterable[Examination], *, fix: bool) -> list[Check]:
    """Return what every check found; with fix, after doing what is safe about what was not ok."""
    return [_examine(subject, examination, fix=fix) for examination in examinations]


def to_dict(checks: Sequence[Check]) -> dict[str, Any]:
    """Return the report as JSON: status, the worst of all; version; checks; fixed, everything that was done."""
    return {
        "status": worst(checks),
        "version": __version__,
        "checks": [check.to_dict() for check in checks],
        "fixed": [done for check in checks for done in check.fixed],
    }


def worst(checks: Iterable[Check]) -> Status:
    """Return the worst status of all."""
    return max((check.status for check in checks), key=ORDER.index, default="ok")


def _examine(subject: Subject, examination: Examination, *, fix: bool) -> Check:
    check = _guarded(subject, examination)
    if not fix or check.status == "ok" or examination.fix is None:
        return check
    try:
        done = tuple(examination.fix(subject))
    except OSError as error:
        return replace(check, detail=_joined(check.detail, f"it could not be mended: {error}"))
    return replace(_guarded(subject, examination), fixed=done) if done else check


def _guarded(subject: Subject, examination: Examination) -> Check:
    try:
        return examination.look(subject)
    except DispatchError as error:
        return Check(
            name=examination.name,
            status="fail",
            summary=f"it cannot be looked at: {error.message}",
            recovery=error.hint,
        )
    except Exception as error:  # noqa: BLE001 -- the border of one check: the others are needed all the more
        return Check(
            name=examination.name,
            status="fail",
            summary=f"the check itself failed: {type(error).__name__}: {error}",
            recovery="report this; the other checks are not affected",
        )


def _joined(*texts: str | None) -> str:
    return "; ".join(text for text in texts if text)
