"""The daemon: how it is, and what it has done."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 -- pydantic reads it
from typing import TYPE_CHECKING, Any

from pydantic import Field

from dispatch_core.api import (
    Example,
    Intent,
    Op,
    OpContext,
    OpInput,
    OpOutput,
    PluginSettings,
    View,
    cli_field,
    hookimpl,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

MIB = 1024 * 1024


class StatusInput(OpInput):
    """Nothing to say."""


class CodexStatus(OpOutput):
    """The app-server the daemon owns."""

    state: str = Field(description="starting, ready or degraded.")
    version: str | None = Field(description="Version of the binary.")
    binary: str | None = Field(description="Path of the binary.")
    source: str | None = Field(
        description="Where it was found: config, DISPATCH_CODEX_BIN, PATH or wheel."
    )
    pid: int | None = Field(description="Its process; null while none runs.")
    restarts: int = Field(description="How often it had to be started again.")
    skipped_lines: int = Field(
        description="Lines of it that could not be understood and were skipped."
    )
    notes: list[str] = Field(description="What it warned of when it started.")


class PluginsStatus(OpOutput):
    """What the daemon has loaded."""

    loaded: int = Field(description="How many plugins are in use.")
    disabled: int = Field(description="How many are left out on request.")
    quarantined: list[str] = Field(
        description="Names of those that failed; dispatch plugins says why."
    )


class StatusOutput(OpOutput):
    """How the daemon is."""

    state: str = Field(description="starting, ready, degraded or draining.")
    reason: str | None = Field(description="Why it is degraded.")
    fix: str | None = Field(description="What to do about it.")
    version: str = Field(description="Version of dispatch.")
    build: str = Field(description="Digest of its code.")
    instance: str = Field(description="Id of this daemon process.")
    manifest: str = Field(description="Key of the plugin manifest it runs with.")
    pid: int = Field(description="Process id.")
    python: str = Field(description="Version of Python.")
    started_at: datetime = Field(description="When it started.")
    uptime: float = Field(description="Seconds since then.")
    rss_bytes: int | None = Field(description="Memory it holds, in bytes.")
    home: str = Field(description="The dispatch home.")
    socket: str = Field(description="The control socket.")
    log: str = Field(description="The log file.")
    offline: bool = Field(description="Whether a stand-in answers instead of the language model.")
    codex: CodexStatus = Field(description="The app-server.")
    plugins: PluginsStatus = Field(description="The plugins.")
    threads: dict[str, int] = Field(description="How many threads are in each state.")
    triggers: int = Field(description="How many triggers there are.")
    triggers_enabled: int = Field(description="How many of them can fire.")


class LogInput(OpInput):
    """Which log, and how much of it."""

    limit: int = cli_field(20, description="At most this many, the newest ones.", ge=1, le=1000)
    daemon: bool = cli_field(False, description="Show the daemon's own log instead of the actions.")


class Action(OpOutput):
    """One thing somebody asked for."""

    at: datetime = Field(description="When.")
    op: str = Field(description="Which op.")
    principal: str = Field(description="Who asked: human, agent:ID, trigger:ID.")
    thread: str | None = Field(description="The thread it was about.")
    trigger_id: str | None = Field(description="The trigger it came from.")
    outcome: str = Field(description="ok, or the code of the error.")
    detail: str | None = Field(description="The beginning of what was asked.")


class LogOutput(OpOutput):
    """The actions, newest first, or the lines of the daemon's log, oldest first."""

    actions: list[Action] = Field(description="What was asked for.")
    lines: list[str] = Field(description="Lines of the daemon's log.")


async def status(context: OpContext, request: StatusInput) -> StatusOutput:  # noqa: ARG001
    """Return how the daemon, Codex, the plugins and the threads are."""
    counts: dict[str, int] = {}
    after: str | None = None
    while page := await context.store.threads.list(archived=True, after=after):
        after = page[-1].key
        for thread in page:
            counts[thread.status.value] = counts.get(thread.status.value, 0) + 1
    triggers = await context.store.triggers.list()
    return StatusOutput.model_validate(
        {
            **context.daemon.status(),
            "threads": counts,
            "triggers": len(triggers),
            "triggers_enabled": sum(trigger.enabled for trigger in triggers),
        }
    )


async def log(context: OpContext, request: LogInput) -> LogOutput:
    """Return the newest entries of the audit log, or of the daemon's own."""
    if request.daemon:
        return LogOutput(actions=[], lines=context.daemon.log_tail(request.limit))
    found = await context.store.actions.latest(request.limit)
    actions = [
        Action(
            at=a.at,
            op=a.op,
            principal=a.principal,
            thread=a.thread,
            trigger_id=a.trigger_id,
            outcome=a.outcome,
            detail=a.detail,
        )
        for a in found
    ]
    return LogOutput(actions=actions, lines=[])


def render_status(output: StatusOutput, view: View) -> str:
    """Name and value lines; what is wrong comes first."""
    codex = output.codex
    threads = ", ".join(f"{count} {name}" for name, count in sorted(output.threads.items()))
    memory = f"{output.rss_bytes / MIB:.0f} MiB" if output.rss_bytes else None
    binary = (
        f"{codex.version or '?'} {view.directory(codex.binary)} (from {codex.source})"
        if codex.binary
        else "not found"
    )
    return view.fields(
        [
            ("state", view.status(output.state)),
            ("reason", printable(output.reason) if output.reason else None),
            ("fix", printable(output.fix) if output.fix else None),
            ("mode", "offline: no language model is used" if output.offline else None),
            ("version", f"{output.version} (build {output.build})"),
            ("process", f"{output.pid}, up {view.age(output.started_at)}, {memory}"),
            ("codex", binary),
            (
                "app-server",
                f"process {codex.pid}, {codex.restarts} restarts" if codex.pid else "not running",
            ),
            ("skipped", f"{codex.skipped_lines} lines of Codex" if codex.skipped_lines else None),
            *(("codex says", printable(note)) for note in codex.notes),
            ("threads", threads or "none"),
            (
                "triggers",
                f"{output.triggers_enabled} of {output.triggers} enabled"
                if output.triggers
                else "none",
            ),
            ("plugins", _plugins(output.plugins, view)),
            ("home", view.directory(output.home)),
            ("log", view.directory(output.log)),
        ]
    )


def _plugins(plugins: PluginsStatus, view: View) -> str:
    text = f"{plugins.loaded} loaded"
    if plugins.disabled:
        text += f", {plugins.disabled} disabled"
    if plugins.quarantined:
        names = ", ".join(map(printable, plugins.quarantined))
        text += view.paint(
            f", {len(plugins.quarantined)} failed: {names} (dispatch plugins)", "red"
        )
    return text


def render_log(output: LogOutput, view: View) -> str:
    """A table of actions, or the lines."""
    if output.lines:
        return "\n".join(printable(line) for line in output.lines)
    if not output.actions:
        return "nothing was asked for yet"
    rows = [
        [view.age(a.at), a.op, a.thread or "-", a.principal, a.outcome, a.detail or ""]
        for a in output.actions
    ]
    return view.table(["AGE", "OP", "THREAD", "WHO", "OUTCOME", "DETAIL"], rows, flexible=5)


@hookimpl
def dispatch_ops(settings: PluginSettings) -> Iterable[Op[Any, Any]]:  # noqa: ARG001
    """Return the ops on the daemon."""
    return (
        Op(
            name="daemon.status",
            summary="Show how the daemon and Codex are",
            noun="daemon",
            input=StatusInput,
            output=StatusOutput,
            handler=status,
            intent=Intent.READ,
            idempotent=True,
            examples=(
                Example(
                    title="a healthy daemon", input={}, output={"state": "ready", "reason": None}
                ),
            ),
            render=render_status,
        ),
        Op(
            name="daemon.log",
            summary="Show what was asked for, and how it ended",
            noun="daemon",
            input=LogInput,
            output=LogOutput,
            handler=log,
            intent=Intent.READ,
            idempotent=True,
            examples=(
                Example(
                    title="the newest action",
                    input={"limit": 1},
                    output={"actions": [{}], "lines": []},
                ),
                Example(title="at least one", input={"limit": 0}, error="validation"),
            ),
            render=render_log,
        ),
    )
