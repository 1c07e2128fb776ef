"""The compiled plugin graph, in a file: the CLI starts from it and imports no plugin.

Standard library only, and few imports: this is on the path of every command. The file is named after a key over everything that
decides its content, so a stale one is simply not found; ``sources`` covers editable installs, whose metadata does not change.

It holds JSON lines. The first is the manifest without the DETAILS of its ops, which are most of it and of which a command needs
hardly any; they follow, each on a line of its own, and are decoded when they are asked for.
"""

from __future__ import annotations

import os
import sys
from _collections_abc import Mapping  # collections itself costs a tenth of a command

from dispatch_core import lean_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from dispatch_core.daemon.paths import Paths

FORMAT = 2
DETAILS = ("schema", "output_schema", "examples")  # of an op
SWITCHES = ("DISPATCH_PLUGINS_DISABLE", "DISPATCH_SAFE", "DISPATCH_STRICT_PLUGINS")
KEEP = 8  # manifests of other interpreters, switches and configurations
BUILD_DEADLINE = 60.0  # seconds for one attempt
RETRIES = 16  # plugins that may each take the building process down


class Entry(Mapping[str, object]):
    """One op of the manifest, with the members of OpInfo. late: those of them that are still JSON."""

    __slots__ = ("_late", "_members")

    def __init__(self, members: dict[str, Any], late: dict[str, str]) -> None:
        self._members = members
        self._late = late

    def __getitem__(self, name: str) -> Any:
        if name in self._late:
            self._members[name] = lean_json.loads(self._late.pop(name))
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter([*self._members, *self._late])

    def __len__(self) -> int:
        return len(self._members) + len(self._late)


def load(paths: Paths, *, safe: bool = False, deadline: float = BUILD_DEADLINE) -> dict[str, Any]:
    """Return the manifest of what is installed now, building it first if there is none.

    deadline: seconds for one attempt at building it; a plugin that exceeds it is left out of the next attempt.
    Raises ValidationFailed for a broken configuration and PluginFault when it cannot be built.
    """
    key = current_key(paths, safe=safe)
    file = file_of(paths, key)
    manifest = _read(file)
    if manifest is None or not _fresh(manifest):
        built = {**_build(paths, safe=safe, deadline=deadline), "key": key}
        _write(file, built)
        manifest = _read(file) or built  # as it was read, it takes a fifth of the memory
    return manifest


def identity(manifest: Mapping[str, Any]) -> str | None:
    """Return what a client tells the daemon of its manifest: the key and the build; None for one that could not be built."""
    return f"{manifest['key']}/{manifest['build']}" if manifest.get("build") else manifest["key"]


def file_of(paths: Paths, key: str) -> str:
    """Return the path of the file that holds, or will hold, the manifest with this key."""
    return f"{paths.cache}/manifest-{key}.jsonl"


def encode(manifest: Mapping[str, Any]) -> str:
    """Return the content of the file."""
    ops = [{name: op[name] for name in op if name not in DETAILS} for op in manifest["ops"]]
    details = [op[name] for op in manifest["ops"] for name in DETAILS]
    return "".join(lean_json.dumps(line) + "\n" for line in ({**manifest, "ops": ops}, *details))


def decode(text: str) -> dict[str, Any]:
    """Return the manifest in a file's content. Raises ValueError for one of another format and for one that is damaged."""
    first, *lines = text.split("\n")
    manifest = lean_json.loads(first)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise ValueError("another format")
    ops, many = manifest.get("ops", ()), len(DETAILS)
    if len(lines) != len(ops) * many + 1 or lines[-1]:
        raise ValueError("not all of it")
    manifest["ops"] = [
        Entry(op, dict(zip(DETAILS, lines[at * many : (at + 1) * many], strict=True)))
        for at, op in enumerate(ops)
    ]
    return manifest


def current_key(paths: Paths, *, safe: bool = False) -> str:
    """Return the key of the manifest that would be right now: interpreter, distributions, configuration, switches."""
    parts = [str(FORMAT), sys.prefix, sys.version, str(safe)]
    parts += [f"{name}={os.environ.get(name, '')}" for name in SWITCHES]
    # Homes without a configuration have the same one.
    parts.append(_stamp(paths.config) if os.path.lexists(paths.config) else "-")
    parts += sorted(set(_entry_points()))
    return _digest("\n".join(parts).encode("utf-8", "surrogateescape"))


def _entry_points() -> Iterator[str]:
    for directory in sys.path:
        try:
            with os.scandir(directory or ".") as entries:
                for entry in entries:
                    if entry.name.endswith(".dist-info"):
                        yield _stamp(f"{entry.path}/entry_points.txt")
        except OSError:
            continue


def _stamp(path: str) -> str:
    try:
        stat = os.stat(path)
    except OSError:
        return f"{path} -"
    return f"{path} {stat.st_mtime_ns} {stat.st_size}"


def _digest(data: bytes) -> str:
    # The module behind hashlib: hashlib itself loads OpenSSL, which costs as much as the rest of this file.
    try:
        from _blake2 import blake2b
    except ImportError:
        from hashlib import blake2b
    return blake2b(data, digest_size=12).hexdigest()


def _read(file: str) -> dict[str, Any] | None:
    try:
        with open(file, "rb") as stream:
            return decode(stream.read().decode())
    except (OSError, ValueError):
        return None


def _fresh(manifest: dict[str, Any]) -> bool:
    try:
        return all(os.stat(path).st_mtime_ns == mtime for path, mtime in manifest["sources"])
    except (OSError, KeyError, ValueError, TypeError):
        return False


def _write(file: str, manifest: dict[str, Any]) -> None:
    """Replace the file in one step; a cache that cannot be written only costs time."""
    directory = os.path.dirname(file)
    temporary = f"{file}.{os.getpid()}"
    try:
        # One by one: a mode is that of the last folder alone, and the home is private too.
        for folder in (os.path.dirname(directory), directory):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as stream:
            stream.write(encode(manifest))
        os.replace(temporary, file)
        _prune(directory)
    except OSError:
        return


def _prune(directory: str) -> None:
    with os.scandir(directory) as entries:
        files = [entry for entry in entries if entry.name.startswith("manifest-")]
    files.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    for entry in files[KEEP:]:
        os.unlink(entry.path)


def _build(paths: Paths, *, safe: bool, deadline: float) -> dict[str, Any]:
    from dispatch_core.errors import PluginFault

    skip: dict[str, str] = {}
    for _ in range(RETRIES):
        answer = _attempt({"config": paths.config, "safe": safe, "skip": skip}, deadline)
        if "manifest" in answer:
            return dict(answer["manifest"])
        if "error" in answer:
            raise _rebuilt(answer["error"])
        if answer["culprit"] is None or answer["culprit"] in skip:
            break
        skip[answer["culprit"]] = answer["reason"]
    raise PluginFault(
        f"the plugins cannot be examined: {answer['reason']}",
        hint="dispatch --safe plugins leaves third-party plugins out",
        details={"output": answer["output"]},
    )


def _rebuilt(error: dict[str, Any]) -> Exception:
    from dispatch_core.errors import RemoteError, ValidationFailed

    if error["code"] == ValidationFailed.code:
        return ValidationFailed(error["message"], hint=error["hint"], details=error["details"])
    return RemoteError(error)


def _attempt(order: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Run the building process once; without a result, say which plugin it was importing and how it ended."""
    import subprocess

    command = [sys.executable, "-P", "-m", "dispatch_core.plugin.build", lean_json.dumps(order)]
    reason = "importing it ended the process"
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=deadline,
            check=False,
        )
        out, err = done.stdout, done.stderr
        reason += f" with status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        out, err = error.stdout or b"", error.stderr or b""
        reason = f"importing it took longer than {deadline:g} s"
    culprit = None
    for line in out.splitlines():
        message = lean_json.loads(line.decode())
        if "loading" not in message:
            return dict(message)
        culprit = message["loading"]
    if culprit is None:
        reason = f"the examining process failed: {err.decode(errors='replace').strip()[-500:]}"
    return {"culprit": culprit, "reason": reason, "output": err.decode(errors="replace")[-2000:]}
