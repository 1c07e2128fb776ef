"""Codex: which binary and why, whether it is signed in, and what an app-server of it can do."""

from __future__ import annotations

import re
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from dispatch_core import __version__
from dispatch_core.appserver import binary as binaries
from dispatch_core.appserver import client
from dispatch_core.errors import CodexError, CodexUnavailable, DispatchError
from dispatch_core.offline.codex_home import offline_environ, write_codex_home
from dispatch_core.settings import CodexSection, Settings
from dispatch_plugins.cli.doctor.report import Check

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_plugins.cli.doctor.report import Subject

CREDENTIALS = ("auth.json", "credentials.json")
NOWHERE = "http://127.0.0.1:9/v1"  # the port that discards; no model is asked
NO_SUCH_METHOD = "dispatch/doctor"  # Codex answers with the methods it has
QUOTED = re.compile(r"`([^`]+)`")
NEEDED = (
    "model/list",
    "thread/items/list",
    "thread/list",
    "thread/name/set",
    "thread/read",
    "thread/resume",
    "thread/start",
    "thread/turns/list",
    "turn/interrupt",
    "turn/start",
    "turn/steer",
)
# What dispatch does without: method → what is missing then.
OPTIONAL = {
    "permissionProfile/list": "permissions, new --permissions",
    "thread/archive": "archive",
    "thread/backgroundTerminals/clean": "stopping commands that outlive an interrupt",
    "thread/compact/start": "compact",
    "thread/fork": "fork",
    "thread/goal/set": "goals",
    "thread/inject_items": "send --context",
    "thread/revert": "revert",
    "thread/search": "search in what is not indexed",
    "thread/unarchive": "restore",
}


def binary(subject: Subject) -> Check:
    """Which Codex is used, why, and whether it is of a version that dispatch is tested with."""
    data: dict[str, Any] = {}
    try:
        found = _find(subject)
        data = {"path": str(found.path), "source": found.source}
        version = anyio.run(partial(_version, found.path, subject.timeout))
        data["version"] = str(version)
        note = binaries.check_version(version)
    except DispatchError as error:
        return Check(
            name="codex_binary",
            status="fail",
            summary=error.message,
            recovery=error.hint,
            data=data,
        )
    summary = f"Codex {data['version']}, {found.path} (from {found.source})"
    if note:
        return Check(
            name="codex_binary",
            status="warn",
            summary=note,
            detail=summary,
            recovery="dispatch doctor without --no-app-server says whether all that is needed is there",
            data=data,
        )
    return Check(name="codex_binary", status="ok", summary=summary, data=data)


def auth(subject: Subject) -> Check:
    """Whether Codex has been signed in; the file is never read."""
    if subject.offline:
        return Check(name="codex_auth", status="ok", summary="offline mode needs no account")
    home = Path(subject.codex_home)
    found = next((str(home / name) for name in CREDENTIALS if (home / name).exists()), None)
    data = {"codex_home": str(home), "file": found}
    if found:
        return Check(name="codex_auth", status="ok", summary=f"{found} is there", data=data)
    return Check(
        name="codex_auth",
        status="warn",
        summary=f"there is no {home / CREDENTIALS[0]}",
        detail="a model provider of its own, with a key from the environment, needs none",
        recovery="codex login; or dispatch up --offline to try dispatch without an account",
        data=data,
    )


def app_server(subject: Subject) -> Check:
    """Whether an app-server starts, and has the methods that dispatch calls; it gets a home of its own and asks no model."""
    if not subject.probe:
        return Check(
            name="app_server",
            status="warn",
            summary="not looked at (--no-app-server)",
            recovery="dispatch doctor",
        )
    try:
        found = _find(subject)
        methods, notes = anyio.run(partial(_probe, found.path, subject))
    except TimeoutError:
        return _failed(f"it did not start within {subject.timeout:g} s", "a larger --timeout", {})
    except DispatchError as error:
        return _failed(error.message, error.hint, error.details)
    return _capabilities(methods, notes)


def _find(subject: Subject) -> binaries.CodexBinary:
    configured = Settings.read(subject.paths.config).section("codex", CodexSection).bin
    return binaries.find_codex(configured, subject.env)


async def _version(path: Path, timeout: float) -> binaries.Version:  # noqa: ASYNC109 -- it is said in the error
    with anyio.move_on_after(timeout):
        return await binaries.codex_version(path)
    raise CodexUnavailable(f"{path} --version gave no answer within {timeout:g} s")


async def _probe(path: Path, subject: Subject) -> tuple[frozenset[str], list[str]]:
    """Return the methods that an app-server knows, and what it warned of. Raises TimeoutError and CodexError."""
    notes: list[str] = []

    def heard(method: str, params: Mapping[str, Any]) -> None:
        if method == "configWarning" and isinstance(params.get("summary"), str):
            notes.append(params["summary"])

    with tempfile.TemporaryDirectory(prefix="dispatch-doctor-") as name:
        home = Path(name) / "codex"
        write_codex_home(home, NOWHERE)
        env = {**offline_environ(home, subject.env), "TMPDIR": name}
        with anyio.fail_after(subject.timeout):
            async with client.connect(
                path,
                env=env,
                cwd=Path(name),
                on_notification=heard,
                on_request=None,
                version=__version__,
            ) as server:
                try:
                    await server.request(NO_SUCH_METHOD, {}, timeout=subject.timeout)
                except CodexError as error:
                    said = str(error.details.get("message") or error.message)
                    return frozenset(QUOTED.findall(said)) - {NO_SUCH_METHOD}, notes
    return frozenset(), notes


def _capabilities(methods: frozenset[str], notes: list[str]) -> Check:
    data = {"methods": len(methods), "notes": notes}
    if not methods:
        return Check(
            name="app_server",
            status="warn",
            summary="it starts, and does not say which methods it has",
            recovery="dispatch demo tries the main ones",
            data=data,
        )
    lacking = [name for name in NEEDED if name not in methods]
    without = {name: use for name, use in OPTIONAL.items() if name not in methods}
    data = {**data, "lacking": lacking, "without": sorted(without)}
    if lacking:
        return _failed(
            f"this Codex has no {', '.join(lacking)}",
            "use a Codex that dispatch is tested with",
            data,
        )
    if without:
        return Check(
            name="app_server",
            status="warn",
            summary=f"it starts; without {', '.join(without)} these do not work: {'; '.join(without.values())}",
            recovery="upgrade Codex",
            data=data,
        )
    return Check(
        name="app_server",
        status="ok",
        summary=f"it starts, and has all {len(NEEDED) + len(OPTIONAL)} methods that are needed",
        data=data,
    )


def _failed(summary: str, recovery: str | None, data: Mapping[str, Any]) -> Check:
    stderr = str(data.get("stderr") or "").strip()
    return Check(
        name="app_server",
        status="fail",
        summary=summary,
        detail=stderr[-1000:] or None,
        recovery=recovery,
        data={name: value for name, value in data.items() if name != "stderr"},
    )
