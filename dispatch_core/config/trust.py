"""Trust in a project's configuration: given by a person, to the exact content that was shown, and lost on any change.

What is trusted is the configuration file together with the files it names, for those become prompts as well.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core.config.keys import KEYS, ProjectClass
from dispatch_core.config.texts import read_file
from dispatch_core.daemon.lock import private_directory
from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dispatch_core.config.files import ConfigFile

FORMAT = 1


class Trust(StrEnum):
    """How a project's file stands. FOREIGN: it belongs to another user, and nothing of it is used."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"
    CHANGED = "changed"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A configuration with the files it names. parts: content by absolute path; None for what cannot be read."""

    path: str
    parts: Mapping[str, bytes | None]

    @property
    def digests(self) -> dict[str, str]:
        """The sha256 of every part; empty for one that cannot be read."""
        return {path: _digest(content) for path, content in self.parts.items()}


@dataclass(frozen=True, slots=True)
class Trusted:
    """What was trusted. parts: digest and text, by absolute path. at: when."""

    path: str
    at: datetime
    parts: Mapping[str, tuple[str, str]]

    def covers(self, bundle: Bundle) -> bool:
        """Return whether the bundle is, byte for byte, what was trusted."""
        return {path: digest for path, (digest, _) in self.parts.items()} == bundle.digests


def bundle_of(file: ConfigFile) -> Bundle:
    """Return a project's file with the files that it names within the project."""
    parts: dict[str, bytes | None] = {str(file.path): file.content}
    for values in (file.defaults, *file.presets.values()):
        for name, value in values.items():
            key = KEYS[name]
            if key.path == "file" and key.classify(value, file.root) is not ProjectClass.NEVER:
                parts.setdefault(value, _content(Path(value), name))
    return Bundle(str(file.path), parts)


def is_foreign(path: Path) -> bool:
    """Return whether a file, the link to it or the folder it is in belongs to somebody who is neither this user nor root."""
    try:
        owners = {path.stat().st_uid, path.lstat().st_uid, path.parent.stat().st_uid}
    except OSError:
        return False
    return not owners <= {os.geteuid(), 0}


class TrustStore:
    """The files that are trusted, in one private file of the dispatch home."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, path: str) -> Trusted | None:
        """Return what was trusted under a path. Raises ValidationFailed when the store is damaged."""
        return self._read().get(path)

    def all(self) -> list[Trusted]:
        """Return everything that is trusted, by path."""
        return [trusted for _, trusted in sorted(self._read().items())]

    def state(self, bundle: Bundle) -> Trust:
        """Return how a bundle stands."""
        trusted = self.get(bundle.path)
        if trusted is None:
            return Trust.UNTRUSTED
        return Trust.TRUSTED if trusted.covers(bundle) else Trust.CHANGED

    def add(self, bundle: Bundle, at: datetime) -> Trusted:
        """Trust exactly this content, in place of what was trusted under the path before."""
        parts = {
            path: (_digest(content), (content or b"").decode("utf-8", "replace"))
            for path, content in bundle.parts.items()
        }
        trusted = Trusted(bundle.path, at, parts)
        with self._locked():
            self._write({**self._read(), bundle.path: trusted})
        return trusted

    def remove(self, path: str) -> bool:
        """Take trust away; False if there was none."""
        with self._locked():
            found = self._read()
            if path not in found:
                return False
            del found[path]
            self._write(found)
        return True

    def _read(self) -> dict[str, Trusted]:
        try:
            document = json.loads(self.path.read_bytes())
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']} is of another version")
            return {path: _parse(path, entry) for path, entry in document["trusted"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValidationFailed(
                f"{self.path} cannot be used: {error}",
                hint="move it away, and trust again what is to be trusted",
                details={"path": str(self.path)},
            ) from error

    def _write(self, entries: Mapping[str, Trusted]) -> None:
        document = {
            "format": FORMAT,
            "trusted": {path: _document(trusted) for path, trusted in entries.items()},
        }
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(document, file, indent=1)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            with suppress(FileNotFoundError):
                Path(name).unlink()
            raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out: each reads all entries, and writes all."""
        private_directory(self.path.parent)
        descriptor = os.open(
            f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def difference(before: Trusted | None, bundle: Bundle) -> str:
    """Return what is to be trusted as a unified diff against what was; against nothing it is the whole content."""
    lines: list[str] = []
    old = before.parts if before is not None else {}
    for path in dict.fromkeys([*bundle.parts, *old]):
        was = old[path][1] if path in old else ""
        content = bundle.parts.get(path)
        now = content.decode("utf-8", "replace") if content is not None else ""
        lines += _diff(was, now, path, new=path not in old, gone=path not in bundle.parts)
        if path in bundle.parts and content is None:
            lines.append(f"# {path} cannot be read")
    return "\n".join(lines)


def _diff(was: str, now: str, path: str, *, new: bool, gone: bool) -> list[str]:
    from difflib import unified_diff  # noqa: PLC0415 -- for memory: the daemon only reads

    before = "/dev/null" if new else path
    after = "/dev/null" if gone else path
    return [
        line.rstrip("\n")
        for line in unified_diff(was.splitlines(), now.splitlines(), before, after, lineterm="")
    ]


def _content(path: Path, key: str) -> bytes | None:
    try:
        return read_file(path, key)
    except ValidationFailed:
        return None


def _digest(content: bytes | None) -> str:
    return "" if content is None else sha256(content).hexdigest()


def _parse(path: str, entry: Mapping[str, Any]) -> Trusted:
    parts = {
        str(name): (str(part["sha256"]), str(part["text"])) for name, part in entry["parts"].items()
    }
    return Trusted(path, datetime.fromisoformat(entry["at"]), parts)


def _document(trusted: Trusted) -> dict[str, Any]:
    parts = {path: {"sha256": d, "text": text} for path, (d, text) in trusted.parts.items()}
    return {"at": trusted.at.isoformat(), "parts": parts}
