"""Which Codex to run, and whether it is new enough."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio

from dispatch_core.appserver.process import output_of
from dispatch_core.errors import CodexUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MIN_VERSION = (0, 163, 0)
UNTESTED_FROM = (0, 170, 0)
VERSION_DEADLINE = 10.0
# Another try cannot succeed before somebody has changed something.
PERMANENT = {"permanent": True}
INSTALL_HINT = (
    "pip install 'codex-dispatch[codex]', or set [codex] bin to the path of a codex binary"
)
NATIVE_MAGICS = (
    b"\x7fELF",
    b"\xcf\xfa\xed\xfe",
    b"\xce\xfa\xed\xfe",
    b"\xca\xfe\xba\xbe",
    b"\xfe\xed\xfa\xcf",
    b"\xfe\xed\xfa\xce",
)


@dataclass(frozen=True, slots=True)
class CodexBinary:
    """A Codex executable. source: who named it: "config", "DISPATCH_CODEX_BIN", "PATH", "wheel"."""

    path: Path
    source: str


def find_codex(configured: str | None, env: Mapping[str, str]) -> CodexBinary:
    """Return the Codex to run.

    In this order: the configured one, DISPATCH_CODEX_BIN, codex on PATH, the one in the wheel.

    What is named explicitly is never passed over: if it cannot be run, that is the error. The npm
    package's script is replaced by the native binary that comes with it, so that there is one
    process to supervise. env: where PATH and the variable are looked up. Raises CodexUnavailable.
    """
    search = env.get("PATH", os.defpath)
    if configured:
        return CodexBinary(_named(configured, "[codex] bin", search), "config")
    if variable := env.get("DISPATCH_CODEX_BIN"):
        return CodexBinary(_named(variable, "DISPATCH_CODEX_BIN", search), "DISPATCH_CODEX_BIN")
    if found := shutil.which("codex", path=search):
        return CodexBinary(_native(Path(found)), "PATH")
    return CodexBinary(_bundled(), "wheel")


class Version(NamedTuple):
    """Of Codex. suffix: of a prerelease or a build, such as "-alpha.5": another program than the release."""

    major: int
    minor: int
    patch: int
    suffix: str = ""

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}{self.suffix}"


async def codex_version(binary: Path) -> Version:
    """Return what ``codex --version`` says.

    Raises CodexUnavailable if it cannot be run, or says nothing of the kind within 10 s.
    """
    output = ""
    try:
        with anyio.fail_after(VERSION_DEADLINE):
            output = await output_of([str(binary), "--version"])
    except OSError as error:
        # TimeoutError is an OSError; so are a missing file and a missing permission.
        reason = f"gave no answer within {VERSION_DEADLINE:.0f} s"
        if not isinstance(error, TimeoutError):
            reason = f"cannot be run: {error.strerror or error}"
        raise CodexUnavailable(f"{binary} {reason}", hint=INSTALL_HINT) from error
    found = re.search(r"(\d+)\.(\d+)\.(\d+)([-+][0-9A-Za-z.+-]+)?", output)
    if found is None:
        said = output.strip()[:200] or "nothing"
        raise CodexUnavailable(
            f"{binary} --version said {said!r}, which is no Codex version", hint=INSTALL_HINT
        )
    return Version(int(found[1]), int(found[2]), int(found[3]), found[4] or "")


def check_version(version: Version) -> str | None:
    """Return a note if this version is newer than any tested one, else None.

    Raises CodexUnavailable if it is too old.
    """
    if version[:3] < MIN_VERSION:
        needed = ".".join(map(str, MIN_VERSION))
        raise CodexUnavailable(
            f"Codex {version} is too old: dispatch needs {needed} or later",
            hint="upgrade Codex, or pip install --upgrade 'codex-dispatch[codex]'",
            details={"version": str(version), "needed": needed, **PERMANENT},
        )
    if version[:3] >= UNTESTED_FROM:
        return f"Codex {version} is newer than the versions dispatch is tested with"
    return None


def _named(value: str, origin: str, search: str) -> Path:
    path = Path(value).expanduser()
    if path.name == value and (found := shutil.which(value, path=search)):
        return _native(Path(found))
    if not path.is_absolute():
        reason = "is not on PATH" if path.name == value else "is not an absolute path"
    elif not path.exists():
        reason = "does not exist"
    elif not path.is_file() or not os.access(path, os.X_OK):
        reason = "is not an executable file"
    else:
        return _native(path)
    raise CodexUnavailable(
        f"{origin} names {value}, which {reason}",
        hint=f"correct {origin}, or remove it to use codex from PATH or from the wheel",
        details=PERMANENT,
    )


def _bundled() -> Path:
    try:
        # Optional: the wheel comes with the extra "codex" only.
        import codex_cli_bin  # noqa: PLC0415

        return Path(codex_cli_bin.bundled_codex_path())
    except (ImportError, OSError) as error:
        raise CodexUnavailable(
            "there is no Codex: none is configured, on PATH or in the optional wheel",
            hint=INSTALL_HINT,
            details=PERMANENT,
        ) from error


def _native(path: Path) -> Path:
    """Return the native binary that belongs to the npm package's script, or the path itself."""
    if _is_native(path):
        return path
    return next(
        (candidate for candidate in _vendored(path.resolve()) if _is_native(candidate)), path
    )


def _vendored(script: Path) -> Iterator[Path]:
    package = script.parent.parent
    for root in (
        package,
        *package.glob("node_modules/@openai/codex-*"),
        *package.parent.glob("codex-*"),
    ):
        for triple in sorted(root.glob("vendor/*")):
            if _is_for_this_machine(triple.name):
                yield triple / "bin" / "codex"
                yield triple / "codex" / "codex"


def _is_for_this_machine(triple: str) -> bool:
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    system = "apple-darwin" if os.uname().sysname == "Darwin" else "linux"
    return triple.startswith(machine) and system in triple


def _is_native(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) in NATIVE_MAGICS and os.access(path, os.X_OK)
    except OSError:
        return False
