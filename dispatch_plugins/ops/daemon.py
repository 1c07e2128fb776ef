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
SLOW = 2.0  # seconds for a heartbeat's answer that are worth saying


class StatusInput(OpInput):
    """Nothing to say."""


class Breaker(OpOutput):
    """Whether a Codex that keeps ending is started again."""

    state: str = Field(
        description="closed: at once; open: after a pause; half_open: one try is being made; tripped: not before a person acts."
    )
    exits: int = Field(description="How often it ended within the last minute.")
    openings: int = Field(description="How often starting had to pause; it ends at the third time.")
    next_try_in: float | None = Field(description="Seconds until it is started again.")


class Heartbeat(OpOutput):
    """Whether Codex answers; it is asked every ten seconds."""

    at: datetime | None = Field(description="When it answered last.")
    latency: float | None = Field(description="Seconds that took.")
    missed: int = Field(description="Heartbeats since then without an answer; it is killed at 3.")
    late: int = Field(
        description="Waits that do not count, as the machine slept or was too busy for the daemon."
    )


class Traffic(OpOutput):
    """What was exchanged with the running app-server."""

    in_flight: int = Field(description="Requests that wait for its answer.")
    limit: int = Field(description="How many may wait; fewer while it is slow or overloaded.")
    overloads: int = Field(description="How often it had too much to do; requests are sent again.")
    invalid_lines: int = Field(description="Lines that are no messages and were skipped.")
    oversized_lines: int = Field(description="Lines over 64 MiB, which were skipped.")
    unmatched_answers: int = Field(description="Answers that came too late, twice or to nobody.")
    handler_errors: int = Field(description="Messages that dispatch failed on; its log says why.")
    unknown_requests: int = Field(description="Requests of a kind that dispatch does not know.")
    unknown_notifications: int = Field(description="Notifications of such a kind.")
    unknown: dict[str, int] = Field(description="The names of these, with how often each came.")


class CodexStatus(OpOutput):
    """The app-server the daemon owns."""

    state: str = Field(description="starting, ready or degraded.")
    version: str | None = Field(description="Version of the binary.")
    binary: str | None = Field(description="Path of the binary.")
    source: str | None = Field(
        description="Where it was found: config, DISPATCH_CODEX_BIN, PATH or wheel."
    )
    pid: int | None = Field(description="Its process; null while none runs.")
    started_at: datetime | None = Field(description="When it started.")
    uptime: float | None = Field(description="Seconds since then.")
    epoch: str | None = Field(
        description="Names the process: boot, process id, start in clock ticks, generation."
    )
    generation: int | None = Field(description="The number of the process in this daemon's life.")
    rss_bytes: int | None = Field(
        description="Memory it holds, in bytes. Over 2 GiB it is started again once nothing runs, over 4 GiB at once."
    )
    restarts: int = Field(description="How often it had to be started again.")
    last_exit: str | None = Field(description="Why it ended the last time.")
    last_exit_at: datetime | None = Field(description="When that was.")
    breaker: Breaker = Field(description="Whether it is started again.")
    heartbeat: Heartbeat | None = Field(description="Whether it answers; null while none runs.")
    traffic: Traffic | None = Field(description="What was exchanged; null while none runs.")
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
            ("app-server", _app_server(codex, view)),
            *_not_normal(codex, view),
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


def _app_server(codex: CodexStatus, view: View) -> str:
    if codex.pid is None:
        wait = codex.breaker.next_try_in
        return "not running" if wait is None else f"not running, next try in {wait:.0f} s"
    parts = [f"process {codex.pid}"]
    if codex.started_at:
        parts.append(f"up {view.age(codex.started_at)}")
    if codex.rss_bytes:
        parts.append(f"{codex.rss_bytes / MIB:.0f} MiB")
    parts.append(f"{codex.restarts} restarts")
    return ", ".join(parts)


def _not_normal(codex: CodexStatus, view: View) -> Iterable[tuple[str, str]]:
    """Give what is worth a line of its own, and nothing of a Codex that is well."""
    if codex.last_exit and codex.last_exit_at:
        yield "last exit", f"{view.age(codex.last_exit_at)} ago: {printable(codex.last_exit)}"
    if codex.breaker.openings:
        yield "breaker", f"{codex.breaker.state}, opened {codex.breaker.openings} of 3 times"
    beat, traffic = codex.heartbeat, codex.traffic
    if beat and (beat.missed or (beat.latency or 0) > SLOW):
        last = f"{beat.latency:.1f} s for the last answer" if beat.latency else "no answer yet"
        yield "heartbeat", f"{beat.missed} missed, {last}"
    if traffic is None:
        return
    if traffic.overloads:
        yield "overloaded", f"{traffic.overloads} times; {traffic.limit} requests at a time now"
    if skipped := traffic.invalid_lines + traffic.oversized_lines:
        yield "skipped", f"{skipped} lines of Codex"
    if traffic.unknown:
        names = ", ".join(printable(name) for name in sorted(traffic.unknown)[:3])
        count = traffic.unknown_requests + traffic.unknown_notifications
        yield "unknown", f"{count} messages of Codex: {names}"
    if traffic.handler_errors:
        yield "errors", f"{traffic.handler_errors} messages of Codex (dispatch daemon log --daemon)"


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
