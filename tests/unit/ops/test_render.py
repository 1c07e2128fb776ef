"""What people see of every op, at 80 and at 120 columns, word for word; list, get, tail and search have a file of their own."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

import pytest

import dispatch_plugins.ops
from dispatch_core.contracts.view import PAINT, View, columns_of
from dispatch_plugins.ops import (
    branches,
    daemon,
    lifecycle,
    sync,
    trigger_views,
)
from dispatch_plugins.ops.deliveries import contract as deliveries
from dispatch_plugins.ops.deliveries import text as delivery_text
from dispatch_plugins.ops.goals import contract as goals
from dispatch_plugins.ops.goals import text as goal_text
from dispatch_plugins.ops.models import contract as models
from dispatch_plugins.ops.models import text as model_text
from dispatch_plugins.ops.new import contract as new
from dispatch_plugins.ops.new.render import render_new
from dispatch_plugins.ops.requests import contract as requests
from dispatch_plugins.ops.requests import text as request_text
from dispatch_plugins.ops.search.render import render_search
from dispatch_plugins.ops.send import contract as send
from dispatch_plugins.ops.send.text import render_send, render_stop
from dispatch_plugins.ops.shared.histories import sync_view
from dispatch_plugins.ops.threads.conversation import render_tail
from dispatch_plugins.ops.threads.listing import render_list
from dispatch_plugins.ops.threads.show import render_get
from dispatch_plugins.ops.wait import contract as wait
from dispatch_plugins.ops.wait import text as wait_text
from dispatch_plugins.ops.watch import contract as watch
from dispatch_plugins.ops.watch import text as watch_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dispatch_core.contracts.op import Op, OpOutput

    Render = Callable[[Any, View], str]

WIDTHS = (80, 120)
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
ID = "01a08340-5251-7d23-87b0-50f6e1911115"
OTHER = "01a08341-cd1f-7e73-8721-3fc0d0c1b4a8"
LONG = "@a name that is really quite long, longer than anybody would want it"
SENTENCE = (
    "Done. This is a somewhat longer answer that goes on for more than eighty columns, so that it has to be broken somewhere "
    "between two words.\n\n- one\n- 漢字も折り返す\x1b[2J"
)
ELSEWHERE = {render_list, render_get, render_tail, render_search}  # in test_threads_render


def ago(**units: int) -> datetime:
    return NOW - timedelta(**units)


def thread(ref: str, handle: str, **more: object) -> dict[str, object]:
    plain = {"title": None, "key": "k", "source": "own", "status": "idle", "cwd": "/home/you/src"}
    return {"ref": ref, "id": ID, "handle": handle, **plain, **more}


BUILDER = thread("0BGeK1", "@builder")
BUSY = thread("0BGeK1", "@builder", status="busy")
WORDY = thread("0EqLd1", LONG, cwd="/srv/checkouts/of/the/project")
ARCHIVED = thread("0DzNr1", "@漢字レビュー", status="archived")


def turn(status: str, **more: object) -> dict[str, object]:
    times = {"started_at": ago(minutes=2), "completed_at": ago(minutes=1)}
    return {"id": OTHER, "message_id": None, "status": status, "error": None, **times, **more}


def sent(state: str, where: dict[str, object] = BUILDER, **more: object) -> tuple[Render, OpOutput]:
    turn_id = None if state in ("injected", "queued") else OTHER
    receipt = {"id": ID, "state": state, "turn_id": turn_id, **more}
    return render_send, send.SendOutput.model_validate({"thread": where, "receipt": receipt})


def stopped(commands: int | None) -> tuple[Render, OpOutput]:
    output = {"thread": BUILDER, "turn": turn("interrupted"), "commands_stopped": commands}
    return render_stop, send.StopOutput.model_validate(output)


def waited(*results: dict[str, object]) -> tuple[Render, OpOutput]:
    nothing = {"turn": None, "text": None, "asks": None}
    output = {"results": [{"thread": BUILDER, **nothing, **result} for result in results]}
    return wait_text.render_wait, wait.WaitOutput.model_validate(output)


def delivery(state: str, **more: object) -> dict[str, object]:
    plain = {"id": ID, "thread": BUILDER, "state": state, "when": "idle", "position": None}
    words = {"preview": "Review the last commit", "reason": None, "turn_id": None}
    whose = {"principal": "human", "key": None, "created_at": ago(minutes=3)}
    return {**plain, **words, **whose, "ended_at": None, "expires_at": None, **more}


DOUBT = (
    "the machine was started anew while it was on its way, and Codex does not make sure that its history survives that: it may "
    "have run"
)
STEPS = [
    {"command": "dispatch tail 0BGeK1", "what": "shows what the thread has of it"},
    {"command": "dispatch delivery resolve e1911115 --resend", "what": "it did not run: send it again"},
]  # fmt: skip
FROM_AGENT = {"principal": f"agent:{OTHER}", "turn_id": OTHER, "ended_at": ago(minutes=1)}
ROWS = (
    delivery("queued", id=OTHER, position=12, preview="Then 漢字も折り返す, and everything else that is left to do"),
    delivery("queued", position=0),
    delivery("unknown", thread=WORDY, reason=DOUBT),
    delivery("done", preview=None, **FROM_AGENT),
)  # fmt: skip


def one_delivery(render: Render, state: str, **more: object) -> tuple[Render, OpOutput]:
    output = {"delivery": delivery(state, **more), "next": STEPS[:1]}
    return render, deliveries.DeliveryOutput.model_validate(output)


def all_of_it(what: dict[str, object], **more: object) -> tuple[Render, OpOutput]:
    plain = {"text": SENTENCE, "images": [], "sha256": "4c2e9e6da31a0f", "attempt": 0, "deaths": 0}
    rest = {"epoch": None, "claimed_at": None, "merged": False, "evidence": None, "retry_of": None}
    output = {"delivery": what, "next": STEPS, **plain, **rest, **more}
    return delivery_text.render_get, deliveries.GetOutput.model_validate(output)


def listed_deliveries(
    render: Render, *rows: dict[str, object], following: str | None = None
) -> tuple[Render, OpOutput]:
    output = {"deliveries": list(rows), "next": following}
    return render, deliveries.ListOutput.model_validate(output)


def asked(kind: str, summary: str, **more: object) -> dict[str, object]:
    times = {"asked_at": ago(minutes=1), "deadline": NOW + timedelta(minutes=4)}
    nobody = {"answered_by": None, "decision": None, "closed_at": None, "detail": None}
    plain = {"id": ID, "kind": kind, "state": "open", "summary": summary, "turn_id": OTHER}
    return {**plain, **times, **nobody, **more}


def closed(kind: str, state: str, by: str | None, decision: str | None) -> dict[str, object]:
    more = {"answered_by": by, "decision": decision, "closed_at": NOW, "id": OTHER}
    return asked(kind, f"a {kind}", state=state, thread=BUILDER, **more)


COMMAND = "run: /bin/bash -lc 'make the whole of the documentation, and put it where everybody can read it'"
CHOICES = [
    {"command": f"dispatch request respond {ID} --accept", "meaning": "run it, this once; it may leave its sandbox"},
    {"command": f"dispatch request respond {ID} --decline", "meaning": "do not run it; the turn goes on"},
]  # fmt: skip
ACCEPTED = {"answered_by": "human", "decision": "accept"}
PATCH = "@@ -1 +1 @@\n-old\n+\x1b[2Knew\u202e"


def listed_requests(
    *rows: dict[str, object], following: str | None = None
) -> tuple[Render, OpOutput]:
    output = {"requests": list(rows), "next": following}
    return request_text.render_list, requests.ListOutput.model_validate(output)


def one_request(
    what: dict[str, object], body: dict[str, object] | None, **more: object
) -> tuple[Render, OpOutput]:
    plain = {"thread": BUILDER, "request": what, "method": "m", "digest": "d", "body": body}
    output = {**plain, "cut": False, "choices": CHOICES if body else [], **more}
    return request_text.render_show, requests.ShowOutput.model_validate(output)


def responded(what: dict[str, object], **more: object) -> tuple[Render, OpOutput]:
    plain = {"thread": BUILDER, "answer": {"decision": "accept"}, "dry_run": False}
    output = {**plain, "request": what, **more}
    return request_text.render_respond, requests.RespondOutput.model_validate(output)


def made(**more: object) -> tuple[Render, OpOutput]:
    plain = {"thread": BUILDER, "plan": None, "message_accepted": True, "goal_set": False}
    return render_new, new.NewOutput.model_validate({**plain, "turn": None, "notes": [], **more})


PLAN = {
    "name": "[parser] builder",
    "handle": "@[parser] builder",
    "cwd": "/home/you/work/parser",
    "settings": [
        {"name": "cwd", "value": "/home/you/work/parser", "source": "built-in"},
        {
            "name": "sandbox",
            "value": "read-only",
            "source": "preset review in /home/you/config.toml",
        },
        {"name": "effort", "value": "high", "source": "option"},
        {"name": "ephemeral", "value": False, "source": "built-in"},
        *(
            {"name": name, "value": None, "source": "codex"}
            for name in ("approval_policy", "approvals_reviewer", "model", "model_provider")
        ),
        {"name": "service_tier", "value": None, "source": "codex"},
    ],
    "texts": [
        {"name": "text", "bytes": 12345, "sha256": "4c2e9e6da31a0f", "path": None, "source": "option"}
    ],
    "files": {"user": "/home/you/config.toml"},
    "images": ["/home/you/work/parser/shot.png"],
    "would_send": True,
    "goal": None,
    "goal_budget": None,
}  # fmt: skip


def goal(status: str, **more: object) -> dict[str, object]:
    numbers = {"token_budget": 20000, "tokens_used": 8298, "tokens_remaining": 11702}
    times = {"time_used_seconds": 12.5, "created_at": NOW, "updated_at": ago(minutes=3)}
    objective = "Bring every test of the whole project to green, and keep the documentation true while you do it"
    return {"objective": objective, "status": status, **numbers, **times, **more}


def status(where: dict[str, object] | None, what: object) -> tuple[Render, OpOutput]:
    output = {"id": ID, "thread": where, "goal": what}
    return goal_text.render_status, goals.GoalStatusOutput.model_validate(output)


def outcomes(render: Render, *rows: dict[str, object]) -> tuple[Render, OpOutput]:
    plain = {"id": ID, "managed": True, "changed": True, "note": None}
    output = {"threads": [{**plain, **row} for row in rows]}
    return render, lifecycle.ThreadsOutput.model_validate(output)


def renamed(**more: object) -> tuple[Render, OpOutput]:
    plain = {"id": ID, "name": "maker", "managed": True, "changed": True, "thread": BUILDER}
    return lifecycle.render_rename, lifecycle.RenameOutput.model_validate({**plain, **more})


def model(name: str, what: str, **more: object) -> dict[str, object]:
    efforts = [{"id": e, "description": None} for e in ("low", "medium", "high", "xhigh")]
    plain = {"provider": "openai", "name": name, "default": False, "hidden": False}
    tiers = {"default_service_tier": None, "service_tiers": [], "aliases": {"fast": "priority"}}
    inputs = {"input_modalities": ["text", "image"], "upgrade": None}
    rest = {"default_effort": "medium", "efforts": efforts, **tiers, **inputs}
    return {"id": name, "description": what, **plain, **rest, **more}


MODELS = {
    "catalog_state": "ready",
    "hint": None,
    "source": "cache",
    "refreshed_at": ago(hours=3),
    "warning": "codex is not running: the binary that [codex] bin names does not exist any more",
    "configured": {"model": "gpt-6.1-sol", "effort": "high"},
    "models": [
        model(
            "gpt-6.1-sol",
            "The newest one, for long work that nobody looks at while it goes on",
            default=True,
        ),
        model("gpt-6-luna", "Small and quick", aliases={}),
    ],
}
PROFILES = {
    "catalog_state": "ready",
    "hint": None,
    "source": "app-server",
    "refreshed_at": NOW,
    "warning": None,
    "cwd": "/home/you/src",
    "profiles": [
        {"id": ":read-only", "description": None, "allowed": True, "built_in": True},
        {"id": "ci", "description": "What our CI may do", "allowed": False, "built_in": False},
    ],
}


def attached(*rows: tuple[dict[str, object], bool]) -> tuple[Render, OpOutput]:
    output = [{"thread": one, "new": fresh, "sync": sync_view(None)} for one, fresh in rows]
    return sync.render_attach, sync.AttachOutput.model_validate({"attached": output})


def synced(**more: object) -> tuple[Render, OpOutput]:
    counts = {"sources": 1200, "changed": 0, "new": 0, "moved": 0, "gone": 0, "documents": 0}
    plain = {"threads": [], **counts, "bytes_read": 0, "seconds": 0.02, "problems": []}
    return sync.render_sync, sync.SyncOutput.model_validate({**plain, **more})


INDEXED = sync_view(None).model_copy(
    update={
        "state": sync_view(None).state.COMPLETE,
        "latest_event_at": ago(minutes=4),
        "path": f"/home/you/.codex/sessions/2026/05/04/rollout-2026-05-04T11-00-00-{ID}.jsonl",
    }
)


def event(kind: str, where: bool, /, **data: object) -> dict[str, object]:
    at = {"thread": {"key": "k", "ref": "0BGeK1", "handle": "@builder"} if where else None}
    return {"cursor": "i:1", "at": NOW, "kind": kind, **at, "turn_id": None, "data": data}


def watched(*events: dict[str, object], gap: bool = False) -> tuple[Render, OpOutput]:
    output = {"events": list(events), "cursor": "i:1", "gap": gap}
    return watch_text.render_watch, watch.WatchOutput.model_validate(output)


def trigger(name: str, **more: object) -> dict[str, object]:
    plain = {"id": "fc3ee83c", "kind": "turn_completed", "config": {}, "action": "send"}
    what = {"thread": "@reviewer", "text": "Review what builder has just done."}
    state = {"enabled": True, "created_at": NOW, "next_at": None, "last_firing": None}
    return {"name": name, "when": "turn_completed of 0BGeK1", **plain, **what, **state, **more}


FIRED = {"at": ago(minutes=5), "key": "t1", "status": "failed", "detail": "no thread answers"}
NIGHTLY = trigger(
    "nightly-cleanup-of-everything",
    when="cron 0 3 * * * Europe/Berlin",
    enabled=False,
    next_at=NOW + timedelta(hours=14),
    last_firing=FIRED,
)


def triggers(*rows: dict[str, object]) -> tuple[Render, OpOutput]:
    listed = trigger_views.TriggerList.model_validate({"triggers": list(rows)})
    return trigger_views.render_list, listed


def one_trigger(what: dict[str, object]) -> tuple[Render, OpOutput]:
    return trigger_views.render_one, trigger_views.TriggerView.model_validate(what)


CODEX = {
    "state": "ready",
    "version": "0.163.0",
    "binary": "/home/you/.venv/lib/python3.11/site-packages/codex_cli_bin/bin/codex",
    "source": "wheel",
    "pid": 5145,
    "started_at": ago(hours=2),
    "uptime": 7200.0,
    "epoch": "b/5145/77/1",
    "generation": 1,
    "rss_bytes": 96 << 20,
    "restarts": 0,
    "last_exit": None,
    "last_exit_at": None,
    "breaker": {"state": "closed", "exits": 0, "openings": 0, "next_try_in": None},
    "heartbeat": {"at": ago(seconds=3), "latency": 0.001, "missed": 0, "late": 0},
    "traffic": {
        "in_flight": 0,
        "limit": 32,
        "overloads": 0,
        "invalid_lines": 1,
        "oversized_lines": 1,
        "unmatched_answers": 0,
        "handler_errors": 0,
        "unknown_requests": 0,
        "unknown_notifications": 0,
        "unknown": {},
    },
    "notes": ["Codex could not find bubblewrap on PATH. Install it with your package manager."],
}
DAEMON = {
    "state": "ready",
    "reason": None,
    "fix": None,
    "version": "0.1.0",
    "build": "84563177a560",
    "instance": "i",
    "manifest": "m",
    "pid": 5137,
    "python": "3.11.7",
    "started_at": ago(hours=2),
    "uptime": 7200.0,
    "rss_bytes": 49 << 20,
    "home": "/home/you/.dispatch",
    "socket": "/home/you/.dispatch/dispatchd.sock",
    "log": "/home/you/.dispatch/dispatchd.log",
    "offline": True,
    "codex": CODEX,
    "plugins": {"loaded": 18, "disabled": 1, "quarantined": ["broken"]},
    "threads": {"idle": 2, "busy": 1},
    "triggers": 2,
    "triggers_enabled": 1,
}
DEGRADED = {
    **DAEMON,
    "state": "degraded",
    "reason": "no codex was found: [codex] bin is not set, DISPATCH_CODEX_BIN is not set, and there is none on PATH",
    "fix": "install Codex, or: pip install 'codex-dispatch[codex]'",
    "offline": False,
    "codex": {
        **CODEX,
        "binary": None,
        "pid": None,
        "started_at": None,
        "heartbeat": None,
        "traffic": None,
        "notes": [],
    },
    "plugins": {"loaded": 18, "disabled": 0, "quarantined": []},
    "threads": {},
    "triggers": 0,
    "triggers_enabled": 0,
}
# What a Codex that has been through a lot looks like.
TROUBLED = {
    **DAEMON,
    "codex": {
        **CODEX,
        "restarts": 6,
        "last_exit": "the app-server exited with status -9: it did not answer 3 heartbeats",
        "last_exit_at": ago(seconds=70),
        "breaker": {"state": "half_open", "exits": 2, "openings": 1, "next_try_in": None},
        "heartbeat": {"at": ago(seconds=31), "latency": 0.4, "missed": 2, "late": 1},
        "traffic": {
            **CODEX["traffic"],
            "overloads": 12,
            "limit": 8,
            "unknown_requests": 3,
            "unknown_notifications": 1,
            "unknown": {"turn/dreamed": 1, "item/sing": 3},
            "handler_errors": 1,
        },
        "notes": [],
    },
}
LOGGED = [
    {"op": "send", "thread": "06z4V1", "principal": "trigger:fc3ee83c", "outcome": "ok", "detail": SENTENCE},
    {"op": "trigger.add", "thread": None, "principal": "human", "outcome": "validation", "detail": None},
]  # fmt: skip


def daemon_status(values: dict[str, object]) -> tuple[Render, OpOutput]:
    return daemon.render_status, daemon.StatusOutput.model_validate(values)


def logged(actions: list[dict[str, Any]], lines: tuple[str, ...] = ()) -> tuple[Render, OpOutput]:
    rows = [{"at": ago(seconds=5), "trigger_id": None, **action} for action in actions]
    return daemon.render_log, daemon.LogOutput.model_validate({"actions": rows, "lines": lines})


CASES: dict[str, tuple[Render, OpOutput]] = {
    "new": made(),
    "new, nothing sent": made(message_accepted=False),
    "new, with a goal": made(message_accepted=False, goal_set=True),
    "new, long name": made(thread=WORDY),
    "new, dry run": made(
        thread=None,
        message_accepted=False,
        plan=PLAN,
        notes=[
            "/home/you/work/parser/.dispatch/config.toml: defaults.sandbox ignored: a project may only set it to read-only"
        ],
    ),
    "send": sent("submitted"),
    "send, long name": sent("submitted", WORDY),
    "send, merged": sent("merged"),
    "send --steer": sent("steered"),
    "send --steer, taken later": sent("accepted"),
    "send --interject": sent("interjected"),
    "send --context": sent("injected"),
    "send --queue": sent("queued", position=2),
    "send --queue --expires": sent("queued", position=0, expires_at=NOW + timedelta(hours=2)),
    "send, its key used before": sent("interrupted", duplicate=True),
    "send, on its way": sent("sending"),
    "delivery list": listed_deliveries(delivery_text.render_list, *ROWS, following=ID),
    "delivery list, nothing special": listed_deliveries(
        delivery_text.render_list, delivery("done"), delivery("expired")
    ),
    "delivery list, none": listed_deliveries(delivery_text.render_list),
    "delivery get": all_of_it(
        delivery("unknown", reason=DOUBT, key="nightly-2026-05-04"),
        attempt=2,
        deaths=1,
        epoch={
            "boot_id": "3f2a9c1e-1111-4222-8333-444455556666",
            "pid": 5145,
            "start_time": 1,
            "generation": 2,
            "version": "0.163.0",
        },
        claimed_at=ago(minutes=2),
        evidence="daemon",
        retry_of=OTHER,
        images=["/home/you/work/parser/shot.png"],
    ),
    "delivery get, queued": all_of_it(
        delivery("queued", position=1, expires_at=NOW + timedelta(hours=2)), text="Plan Monday"
    ),
    "delivery get, over": all_of_it(
        delivery("queued", position=1, expires_at=NOW - timedelta(hours=1)), text="Plan Monday"
    ),
    "delivery get, not kept": all_of_it(
        delivery("done", **FROM_AGENT, preview=None), text=None, attempt=1, merged=True, evidence="history"
    ),
    "delivery cancel": (
        delivery_text.render_cancelled,
        deliveries.ChangedOutput.model_validate({"deliveries": [delivery("cancelled")]}),
    ),
    "delivery cancel, several": (
        delivery_text.render_cancelled,
        deliveries.ChangedOutput.model_validate(
            {"deliveries": [delivery("cancelled"), delivery("cancelled", thread=WORDY)]}
        ),
    ),
    "delivery edit": one_delivery(delivery_text.render_one, "queued", position=0),
    "delivery reorder": (
        delivery_text.render_queue,
        deliveries.QueueOutput.model_validate({"deliveries": ROWS[:2]}),
    ),
    "delivery reorder, too late": (
        delivery_text.render_queue,
        deliveries.QueueOutput.model_validate({"deliveries": []}),
    ),
    "delivery resolve": one_delivery(delivery_text.render_one, "done", turn_id=OTHER),
    "delivery requeue": one_delivery(delivery_text.render_requeued, "queued", position=3),
    "dead list": listed_deliveries(
        delivery_text.render_dead, delivery("dead", reason="3 Codex processes ended while they had it and before it ran")
    ),
    "dead list, none": listed_deliveries(delivery_text.render_dead),
    "request list": listed_requests(
        asked("command", COMMAND, thread=BUILDER),
        asked("file_change", "change 2 files: a.py, \x1b[2Kb.py", id=OTHER, thread=WORDY),
        asked("elicitation", "漢字も折り返す: what to do next?", thread=None),
        following=ID,
    ),
    "request list --all": listed_requests(
        asked("unknown", "dream", state="answering", thread=BUILDER),
        closed("command", "answered", "human", "accept"),
        closed("permissions", "declined", "policy", "decline"),
        closed("user_input", "expired", "deadline", "decline"),
        closed("tool_call", "orphaned", None, None),
        closed("mcp_tool", "cancelled", None, None),
    ),
    "request list, none": listed_requests(),
    "request show": one_request(
        asked("command", COMMAND),
        {"command": COMMAND[5:], "cwd": "/home/you/work/parser", "reason": "no network\x07", "network": None},
    ),
    "request show, into a terminal": one_request(
        asked("command", "type: yes"), {"command": "yes\n", "to_terminal": True}, choices=[]
    ),
    "request show, files": one_request(
        asked("file_change", "change 1 file: a.py"),
        {"reason": "a typo", "changes": [{"path": "a.py", "change": "update", "moved_to": "b.py", "diff": PATCH}]},
        cut=True,
    ),
    "request show, files not said": one_request(
        asked("file_change", "change files"), {"grant_root": "/home/you/work"}, choices=[]
    ),
    "request show, permissions": one_request(
        asked("permissions", "be allowed more"), {"permissions": {"network": {"enabled": True}}, "cwd": "/home/you"}, choices=[]
    ),
    "request show, questions": one_request(
        asked("user_input", "answer 2 questions"),
        {
            "questions": [
                {
                    "id": "colour",
                    "header": "Looks",
                    "question": "Which colour is the button that everybody is going to click on first to have?",
                    "options": [{"label": "red", "description": "as before"}, {"label": "blue"}],
                    "other": True,
                },
                {"id": "token", "question": "Which token?", "secret": True},
            ]
        },
        choices=[],
    ),
    "request show, a tool": one_request(
        asked("mcp_tool", "call deploy of acme"),
        {"server": "acme", "arguments": {"to": "staging"}, "nothing": None},
        choices=[],
    ),
    "request show, closed": one_request(
        asked("command", "run: make", state="orphaned", detail="Codex ended while it waited"), None
    ),
    "request respond": responded(asked("command", COMMAND, state="answered", **ACCEPTED)),
    "request respond, Codex is slow": responded(asked("command", COMMAND, state="answering", **ACCEPTED)),
    "request respond --dry-run": responded(asked("command", COMMAND), dry_run=True, answer={"text": "漢字\x1b[2K"}),
    "request respond, no": responded(
        asked("command", COMMAND, state="declined", answered_by="human", decision="decline", detail="not today"), thread=None
    ),
    "request defer": (
        request_text.render_defer,
        requests.DeferOutput.model_validate({"thread": BUILDER, "request": asked("command", COMMAND)}),
    ),
    "stop": stopped(None),
    "stop, with a command": stopped(1),
    "stop, with commands": stopped(2),
    "wait": waited({"outcome": "done", "turn": turn("completed"), "text": SENTENCE}),
    "wait, several": waited(
        {"outcome": "done", "turn": turn("completed"), "text": "Offline reply: Say hello"},
        {"outcome": "failed", "turn": turn("failed", error="The model is overloaded.")},
        {"thread": ARCHIVED, "outcome": "interrupted", "turn": turn("interrupted")},
        {"outcome": "nothing"},
        {"outcome": "needs_attention", "turn": turn("started"), "asks": {"id": ID, "summary": "run: make"}},
        {"outcome": "unknown", "turn": turn("unknown")},
        {"outcome": "failed", "delivery": {"id": ID, "state": "dead", "reason": "given up"}},
    ),
    "wait --first": waited(
        {"thread": WORDY, "outcome": "running", "turn": turn("started")},
        {"outcome": "done", "turn": turn("completed")},
    ),
    "rename": renamed(),
    "rename, nothing to do": renamed(changed=False),
    "rename, unmanaged": renamed(thread=None, managed=False),
    "archive": outcomes(lifecycle.render_archive, {"thread": ARCHIVED}),
    "archive, several": outcomes(
        lifecycle.render_archive,
        {"thread": ARCHIVED},
        {"thread": {**WORDY, "status": "archived"}, "note": lifecycle.HERE_ONLY},
        {"thread": None, "managed": False},
        {"thread": {**BUILDER, "status": "archived"}, "changed": False, "note": "it was archived already"},
    ),
    "restore": outcomes(lifecycle.render_threads, {"thread": BUILDER}),
    "fork": (
        branches.render_fork,
        branches.ForkOutput.model_validate({"thread": WORDY, "turn": None, "source": BUILDER}),
    ),
    "revert": (
        branches.render_revert,
        branches.RevertOutput.model_validate(
            {"thread": BUILDER, "before_turn": ID, "turn": turn("completed")}
        ),
    ),
    "revert, to the beginning": (
        branches.render_revert,
        branches.RevertOutput.model_validate({"thread": BUILDER, "before_turn": ID, "turn": None}),
    ),
    "compact": (
        branches.render_compact,
        branches.CompactOutput.model_validate({"thread": BUSY, "turn": turn("started")}),
    ),
    "goal status": status(BUSY, goal("active")),
    "goal status, none": status(BUILDER, None),
    "goal status, between turns": status(BUILDER, goal("active", token_budget=None)),
    "goal status, used up": status(BUILDER, goal("budgetLimited", tokens_used=20100, tokens_remaining=0)),
    "goal status, unmanaged": status(None, goal("complete")),
    "goal set": (
        goal_text.render_set,
        goals.GoalSetOutput.model_validate({"thread": BUILDER, "goal": goal("paused")}),
    ),
    "goal clear": (
        goal_text.render_clear,
        goals.GoalClearOutput.model_validate({"thread": BUSY, "cleared": True}),
    ),
    "goal clear, none": (
        goal_text.render_clear,
        goals.GoalClearOutput.model_validate({"thread": BUILDER, "cleared": False}),
    ),
    "models": (model_text.render_models, models.ModelsOutput.model_validate(MODELS)),
    "models, none": (
        model_text.render_models,
        models.ModelsOutput.model_validate(
            {**MODELS, "models": [], "source": "app-server", "warning": None, "configured": {}, "hint": "codex login"}
        ),
    ),
    "permissions": (
        model_text.render_permissions,
        models.PermissionsOutput.model_validate(PROFILES),
    ),
    "attach": attached((BUILDER, True)),
    "attach, several": attached((WORDY, True), (BUILDER, False)),
    "sync, nothing new": synced(),
    "sync": synced(changed=1, new=1, documents=1, sources=1, bytes_read=700),
    "sync, threads and problems": synced(
        threads=[
            {"id": ID, "managed": True, "thread": BUILDER, "sync": INDEXED},
            {"id": OTHER, "managed": False, "thread": None, "sync": sync_view(None)},
        ],
        changed=34, new=2, moved=1, gone=1, documents=5678, bytes_read=52_000_000, seconds=12.34,
        problems=[f"/home/you/.codex/sessions/2026/05/04/{n}.jsonl: Permission denied" for n in range(11)],
    ),
    "watch": watched(
        event("thread.created", True),
        event("turn.started", True, status="started"),
        event("item.completed", True, type="agentMessage", text=SENTENCE),
        event("turn.failed", True, status="failed", error="The model is overloaded."),
        event("codex.state", False, state="degraded"),
        event("delivery.changed", True, id=ID, state="queued", before=None, reason=None),
        event("delivery.changed", True, id=ID, state="done", before="running", reason=None),
        event("delivery.changed", True, id=ID, state="queued", before="sending", reason="it did not run"),
        event("delivery.changed", True, id=ID, state="unknown", before="sending", reason=DOUBT),
        event("request.opened", True, id=ID, kind="command", state="open"),
        event("request.closed", True, id=ID, kind="command", state="declined"),
        gap=True,
    ),
    "watch, nothing": watched(),
    "trigger add": one_trigger(trigger("review")),
    "trigger pause": one_trigger(NIGHTLY),
    "trigger list": triggers(trigger("review"), NIGHTLY),
    "trigger list, none": triggers(),
    "trigger rm": (
        trigger_views.render_removed,
        trigger_views.RemovedTrigger(id="fc3ee83c", name="review"),
    ),
    "daemon status": daemon_status(DAEMON),
    "daemon status, degraded": daemon_status(DEGRADED),
    "daemon status, after trouble": daemon_status(TROUBLED),
    "daemon log": logged(LOGGED),
    "daemon log, none": logged([]),
}  # fmt: skip

EXPECTED: dict[str, str] = {
    "new": """\
@builder is thread 0BGeK1; its first message was accepted
  next: dispatch wait 0BGeK1""",
    "new, nothing sent": """\
@builder is thread 0BGeK1; nothing was sent yet
  next: dispatch send 0BGeK1 TEXT""",
    "new, with a goal": """\
@builder is thread 0BGeK1; its goal is set, nothing was sent yet
  next: dispatch wait 0BGeK1""",
    "new, long name 80": """\
@a name that is really quite long, longer than anybody would want it is thread
  0EqLd1; its first message was accepted
  next: dispatch wait 0EqLd1""",
    "new, long name 120": """\
@a name that is really quite long, longer than anybody would want it is thread 0EqLd1; its first message was accepted
  next: dispatch wait 0EqLd1""",
    "new, dry run 80": """\
name    [parser] builder
handle  @[parser] builder

SETTING    VALUE                              SOURCE
cwd        ~/work/parser                      built-in
sandbox    read-only                          preset review (user)
effort     high                               option
ephemeral  false                              built-in
text       12,345 bytes, sha256 4c2e9e6da31a  option
image      shot.png                           option

user config: ~/config.toml
left to Codex: approval_policy, approvals_reviewer, model, model_provider,
  service_tier
nothing was done; the message would be sent
note: /home/you/work/parser/.dispatch/config.toml: defaults.sandbox ignored: a
project may only set it to read-only""",
    "new, dry run 120": """\
name    [parser] builder
handle  @[parser] builder

SETTING    VALUE                              SOURCE
cwd        ~/work/parser                      built-in
sandbox    read-only                          preset review (user)
effort     high                               option
ephemeral  false                              built-in
text       12,345 bytes, sha256 4c2e9e6da31a  option
image      shot.png                           option

user config: ~/config.toml
left to Codex: approval_policy, approvals_reviewer, model, model_provider, service_tier
nothing was done; the message would be sent
note: /home/you/work/parser/.dispatch/config.toml: defaults.sandbox ignored: a project may only set it to read-only""",
    "send": """\
accepted by @builder (0BGeK1), turn 01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
  next: dispatch wait 0BGeK1""",
    "send, long name 80": """\
accepted by @a name that is really quite long, longer than anybody would want it
  (0EqLd1), turn 01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
  next: dispatch wait 0EqLd1""",
    "send, long name 120": """\
accepted by @a name that is really quite long, longer than anybody would want it (0EqLd1), turn
  01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
  next: dispatch wait 0EqLd1""",
    "send, merged": """\
joined a running turn of @builder (0BGeK1)
  next: dispatch wait 0BGeK1""",
    "send --steer": """\
said to the running turn of @builder (0BGeK1)
  next: dispatch wait 0BGeK1""",
    "send --steer, taken later": """\
accepted, to be read after the present step, by @builder (0BGeK1)
  next: dispatch wait 0BGeK1""",
    "send --interject": """\
accepted by @builder (0BGeK1), turn 01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
  the turn that ran is interrupted
  next: dispatch wait 0BGeK1""",
    "send --context": """\
put into the context of @builder (0BGeK1)
  next: dispatch send 0BGeK1 TEXT starts a turn that sees it""",
    "send --queue": """\
queued for @builder (0BGeK1)
  message e1911115, 2 messages before it
  next: dispatch delivery get e1911115, or dispatch wait 0BGeK1""",
    "send --queue --expires": """\
queued for @builder (0BGeK1)
  message e1911115, it is next; not sent after 2026-05-04 14:00:00
  next: dispatch delivery get e1911115, or dispatch wait 0BGeK1""",
    "send, its key used before": """\
sent before to @builder (0BGeK1): message e1911115 is ■ interrupted
  nothing was sent: this key was used for it already
  next: dispatch delivery get e1911115""",
    "send, on its way": """\
is being sent to @builder (0BGeK1), turn 01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
  next: dispatch delivery get e1911115""",
    "delivery list 80": """\
ID        THREAD          STATE      AHEAD  AGE  MESSAGE         WHY
d0c1b4a8  @builder        ◦ queued   12     3m   Then 漢字も折…  -
e1911115  @builder        ◦ queued   0      3m   Review the la…  -
e1911115  @a name that …  ~ unknown  -      3m   Review the la…  the machine wa…
e1911115  @builder        ✓ done     -      3m   -               -
more: add --after 01a08340-5251-7d23-87b0-50f6e1911115
  next: dispatch delivery get e1911115 says what is in doubt""",
    "delivery list 120": """\
ID        THREAD                       STATE      AHEAD  AGE  MESSAGE                       WHY
d0c1b4a8  @builder                     ◦ queued   12     3m   Then 漢字も折り返す, and ev…  -
e1911115  @builder                     ◦ queued   0      3m   Review the last commit        -
e1911115  @a name that is really qui…  ~ unknown  -      3m   Review the last commit        the machine was started ane…
e1911115  @builder                     ✓ done     -      3m   -                             -
more: add --after 01a08340-5251-7d23-87b0-50f6e1911115
  next: dispatch delivery get e1911115 says what is in doubt""",
    "delivery list, nothing special": """\
ID        THREAD    STATE      AGE  MESSAGE
e1911115  @builder  ✓ done     3m   Review the last commit
e1911115  @builder  ▫ expired  3m   Review the last commit""",
    "delivery list, none": """\
nothing was sent yet""",
    "delivery get 80": """\
delivery    01a08340-5251-7d23-87b0-50f6e1911115
state       ~ unknown: the machine was started anew while it was on its way, and
            Codex does not make sure that its history survives that: it may have
            run
thread      @builder (0BGeK1)
accepted    3m ago from human, queued until the thread is idle
given       2 times, last to Codex process 5145 of machine start 3f2a9c1e; 1
            Codex process ended with it
known from  dispatch itself
key         nightly-2026-05-04
repeats     01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
pictures    ~/work/parser/shot.png

  Done. This is a somewhat longer answer that goes on for more than eighty
  columns, so that it has to be broken somewhere between two words.

  - one
  - 漢字も折り返す[2J

  dispatch tail 0BGeK1                         shows what the thread has of it
  dispatch delivery resolve e1911115 --resend  it did not run: send it again""",
    "delivery get 120": """\
delivery    01a08340-5251-7d23-87b0-50f6e1911115
state       ~ unknown: the machine was started anew while it was on its way, and Codex does not make sure that its
            history survives that: it may have run
thread      @builder (0BGeK1)
accepted    3m ago from human, queued until the thread is idle
given       2 times, last to Codex process 5145 of machine start 3f2a9c1e; 1 Codex process ended with it
known from  dispatch itself
key         nightly-2026-05-04
repeats     01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
pictures    ~/work/parser/shot.png

  Done. This is a somewhat longer answer that goes on for more than eighty columns, so that it has to be broken
  somewhere between two words.

  - one
  - 漢字も折り返す[2J

  dispatch tail 0BGeK1                         shows what the thread has of it
  dispatch delivery resolve e1911115 --resend  it did not run: send it again""",
    "delivery get, queued": """\
delivery  01a08340-5251-7d23-87b0-50f6e1911115
state     ◦ queued, 1 message before it
thread    @builder (0BGeK1)
accepted  3m ago from human, queued until the thread is idle
given     not yet
expires   2026-05-04 14:00:00, in 2h

  Plan Monday

  dispatch tail 0BGeK1                         shows what the thread has of it
  dispatch delivery resolve e1911115 --resend  it did not run: send it again""",
    "delivery get, over": """\
delivery  01a08340-5251-7d23-87b0-50f6e1911115
state     ◦ queued, 1 message before it
thread    @builder (0BGeK1)
accepted  3m ago from human, queued until the thread is idle
given     not yet
expires   2026-05-04 11:00:00, which is over: it will not be sent

  Plan Monday

  dispatch tail 0BGeK1                         shows what the thread has of it
  dispatch delivery resolve e1911115 --resend  it did not run: send it again""",
    "delivery get, not kept 80": """\
delivery    01a08340-5251-7d23-87b0-50f6e1911115
state       ✓ done, Codex put it into a turn that ran already
thread      @builder (0BGeK1)
accepted    3m ago from agent:01a08341-cd1f-7e73-8721-3fc0d0c1b4a8, queued until
            the thread is idle
given       once
turn        01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
known from  Codex's history
ended       1m ago

the message is not kept any more; its SHA-256 is 4c2e9e6da31a0f

  dispatch tail 0BGeK1                         shows what the thread has of it
  dispatch delivery resolve e1911115 --resend  it did not run: send it again""",
    "delivery get, not kept 120": """\
delivery    01a08340-5251-7d23-87b0-50f6e1911115
state       ✓ done, Codex put it into a turn that ran already
thread      @builder (0BGeK1)
accepted    3m ago from agent:01a08341-cd1f-7e73-8721-3fc0d0c1b4a8, queued until the thread is idle
given       once
turn        01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
known from  Codex's history
ended       1m ago

the message is not kept any more; its SHA-256 is 4c2e9e6da31a0f

  dispatch tail 0BGeK1                         shows what the thread has of it
  dispatch delivery resolve e1911115 --resend  it did not run: send it again""",
    "delivery cancel": """\
▫ cancelled  e1911115 for @builder (0BGeK1)
  Review the last commit
  next: dispatch delivery requeue e1911115 undoes it""",
    "delivery cancel, several 80": """\
▫ cancelled  e1911115 for @builder (0BGeK1)
  Review the last commit
▫ cancelled  e1911115 for @a name that is really quite long, longer than anybody
  would want it (0EqLd1)
  Review the last commit""",
    "delivery cancel, several 120": """\
▫ cancelled  e1911115 for @builder (0BGeK1)
  Review the last commit
▫ cancelled  e1911115 for @a name that is really quite long, longer than anybody would want it (0EqLd1)
  Review the last commit""",
    "delivery edit": """\
◦ queued  e1911115 for @builder (0BGeK1), it is next
  Review the last commit
  dispatch tail 0BGeK1  shows what the thread has of it""",
    "delivery reorder 80": """\
ID        THREAD    STATE     AHEAD  AGE  MESSAGE
d0c1b4a8  @builder  ◦ queued  12     3m   Then 漢字も折り返す, and everything e…
e1911115  @builder  ◦ queued  0      3m   Review the last commit""",
    "delivery reorder 120": """\
ID        THREAD    STATE     AHEAD  AGE  MESSAGE
d0c1b4a8  @builder  ◦ queued  12     3m   Then 漢字も折り返す, and everything else that is left to do
e1911115  @builder  ◦ queued  0      3m   Review the last commit""",
    "delivery reorder, too late": """\
nothing is queued any more""",
    "delivery resolve": """\
✓ done  e1911115 for @builder (0BGeK1)
  Review the last commit
  dispatch tail 0BGeK1  shows what the thread has of it""",
    "delivery requeue": """\
◦ queued  @builder (0BGeK1): the message is e1911115 now, 3 messages before it
  next: dispatch delivery get e1911115, or dispatch wait 0BGeK1""",
    "dead list 80": """\
ID        THREAD    STATE   AGE  MESSAGE                 WHY
e1911115  @builder  ✗ dead  3m   Review the last commit  3 Codex processes ende…""",
    "dead list 120": """\
ID        THREAD    STATE   AGE  MESSAGE                 WHY
e1911115  @builder  ✗ dead  3m   Review the last commit  3 Codex processes ended while they had it and before it ran""",
    "dead list, none": """\
no delivery was given up""",
    "request list 80": """\
ID        THREAD                 KIND         STATE   LEFT  ASKS
e1911115  @builder               command      ? open  4m    run: /bin/bash -lc …
d0c1b4a8  @a name that is real…  file_change  ? open  4m    change 2 files: a.p…
e1911115  -                      elicitation  ? open  4m    漢字も折り返す: wha…
  next: dispatch request show e1911115
  next: dispatch request list --after 01a08340-5251-7d23-87b0-50f6e1911115""",
    "request list 120": """\
ID        THREAD                                     KIND         STATE   LEFT  ASKS
e1911115  @builder                                   command      ? open  4m    run: /bin/bash -lc 'make the whole of t…
d0c1b4a8  @a name that is really quite long, longe…  file_change  ? open  4m    change 2 files: a.py, \\x1b[2Kb.py
e1911115  -                                          elicitation  ? open  4m    漢字も折り返す: what to do next?
  next: dispatch request show e1911115
  next: dispatch request list --after 01a08340-5251-7d23-87b0-50f6e1911115""",
    "request list --all": """\
ID        THREAD    KIND         STATE        LEFT  ASKS
e1911115  @builder  unknown      ● answering  -     dream
d0c1b4a8  @builder  command      ✓ answered   -     a command
d0c1b4a8  @builder  permissions  ■ declined   -     a permissions
d0c1b4a8  @builder  user_input   ▫ expired    -     a user_input
d0c1b4a8  @builder  tool_call    ✗ orphaned   -     a tool_call
d0c1b4a8  @builder  mcp_tool     ▫ cancelled  -     a mcp_tool""",
    "request list, none": """\
no requests
  next: dispatch request list --all""",
    "request show 80": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         run: /bin/bash -lc 'make the whole of the documentation, and put it
             where everybody can read it'
state        ? open
declined in  4m

── command ─────────────────────────────────────────────────────────────────────
  /bin/bash -lc 'make the whole of the documentation, and put it where everybody
  can read it'
cwd     /home/you/work/parser
reason  no network\\x07

dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --accept
  run it, this once; it may leave its sandbox
dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --decline
  do not run it; the turn goes on""",
    "request show 120": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         run: /bin/bash -lc 'make the whole of the documentation, and put it where everybody can read it'
state        ? open
declined in  4m

── command ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
  /bin/bash -lc 'make the whole of the documentation, and put it where everybody can read it'
cwd     /home/you/work/parser
reason  no network\\x07

dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --accept
  run it, this once; it may leave its sandbox
dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --decline
  do not run it; the turn goes on""",
    "request show, into a terminal 80": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         type: yes
state        ? open
declined in  4m

── type into a terminal ────────────────────────────────────────────────────────
  yes
""",
    "request show, into a terminal 120": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         type: yes
state        ? open
declined in  4m

── type into a terminal ────────────────────────────────────────────────────────────────────────────────────────────────
  yes
""",
    "request show, files 80": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         change 1 file: a.py
state        ? open
declined in  4m

reason  a typo
── update a.py → b.py ──────────────────────────────────────────────────────────
  @@ -1 +1 @@
  -old
  +\\x1b[2Knew\\u202e

This is not all: it is too long to be kept whole.

dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --accept
  run it, this once; it may leave its sandbox
dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --decline
  do not run it; the turn goes on""",
    "request show, files 120": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         change 1 file: a.py
state        ? open
declined in  4m

reason  a typo
── update a.py → b.py ──────────────────────────────────────────────────────────────────────────────────────────────────
  @@ -1 +1 @@
  -old
  +\\x1b[2Knew\\u202e

This is not all: it is too long to be kept whole.

dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --accept
  run it, this once; it may leave its sandbox
dispatch request respond 01a08340-5251-7d23-87b0-50f6e1911115 --decline
  do not run it; the turn goes on""",
    "request show, files not said": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         change files
state        ? open
declined in  4m

grant root  /home/you/work
Codex did not say what it is going to change.""",
    "request show, permissions 80": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         be allowed more
state        ? open
declined in  4m

── more permissions ────────────────────────────────────────────────────────────
  {
    "network": {
      "enabled": true
    }
  }
cwd  /home/you""",
    "request show, permissions 120": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         be allowed more
state        ? open
declined in  4m

── more permissions ────────────────────────────────────────────────────────────────────────────────────────────────────
  {
    "network": {
      "enabled": true
    }
  }
cwd  /home/you""",
    "request show, questions 80": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         answer 2 questions
state        ? open
declined in  4m

── colour  Looks ───────────────────────────────────────────────────────────────
  Which colour is the button that everybody is going to click on first to have?
- red: as before
- blue
- or anything else
── token   ─────────────────────────────────────────────────────────────────────
  Which token?
The answer is a secret: it stays in the history of your shell.""",
    "request show, questions 120": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         answer 2 questions
state        ? open
declined in  4m

── colour  Looks ───────────────────────────────────────────────────────────────────────────────────────────────────────
  Which colour is the button that everybody is going to click on first to have?
- red: as before
- blue
- or anything else
── token   ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
  Which token?
The answer is a secret: it stays in the history of your shell.""",
    "request show, a tool 80": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         call deploy of acme
state        ? open
declined in  4m

── server ──────────────────────────────────────────────────────────────────────
  acme
── arguments ───────────────────────────────────────────────────────────────────
  {
    "to": "staging"
  }""",
    "request show, a tool 120": """\
request      01a08340-5251-7d23-87b0-50f6e1911115
thread       @builder (0BGeK1)
asks         call deploy of acme
state        ? open
declined in  4m

── server ──────────────────────────────────────────────────────────────────────────────────────────────────────────────
  acme
── arguments ───────────────────────────────────────────────────────────────────────────────────────────────────────────
  {
    "to": "staging"
  }""",
    "request show, closed": """\
request  01a08340-5251-7d23-87b0-50f6e1911115
thread   @builder (0BGeK1)
asks     run: make
state    ✗ orphaned
because  Codex ended while it waited""",
    "request respond": """\
✓ answered (accept by human)
  next: dispatch wait 0BGeK1""",
    "request respond, Codex is slow": """\
● answering (accept by human)
  next: dispatch request show e1911115""",
    "request respond --dry-run": """\
nothing was sent; Codex would be told
{"text": "漢字\\u001b[2K"}""",
    "request respond, no": """\
■ declined (decline by human): not today""",
    "request defer": """\
request e1911115 waits 4m more""",
    "stop": """\
■ interrupted  @builder (0BGeK1)""",
    "stop, with a command": """\
■ interrupted  @builder (0BGeK1)
  1 running command stopped""",
    "stop, with commands": """\
■ interrupted  @builder (0BGeK1)
  2 running commands stopped""",
    "wait 80": """\
✓ done  @builder (0BGeK1)
Done. This is a somewhat longer answer that goes on for more than eighty
columns, so that it has to be broken somewhere between two words.

- one
- 漢字も折り返す[2J""",
    "wait 120": """\
✓ done  @builder (0BGeK1)
Done. This is a somewhat longer answer that goes on for more than eighty columns, so that it has to be broken somewhere
between two words.

- one
- 漢字も折り返す[2J""",
    "wait, several": """\
✓ done  @builder (0BGeK1)
Offline reply: Say hello

✗ failed  @builder (0BGeK1)
The model is overloaded.

■ interrupted  @漢字レビュー (0DzNr1)

· nothing  @builder (0BGeK1)
  next: dispatch send 0BGeK1 TEXT

? needs_attention  @builder (0BGeK1)
Codex asks: run: make
  next: dispatch request show e1911115

~ unknown  @builder (0BGeK1)

✗ failed  @builder (0BGeK1)
message e1911115 is dead: given up
  next: dispatch delivery get e1911115""",
    "wait --first 80": """\
● running  @a name that is really quite long, longer than anybody would want it
  (0EqLd1)

✓ done  @builder (0BGeK1)""",
    "wait --first 120": """\
● running  @a name that is really quite long, longer than anybody would want it (0EqLd1)
✓ done  @builder (0BGeK1)""",
    "rename": """\
0BGeK1 is called @builder now""",
    "rename, nothing to do": """\
@builder (0BGeK1) has that name already""",
    "rename, unmanaged": """\
01a08340-5251-7d23-87b0-50f6e1911115 is called maker now; it is not managed""",
    "archive": """\
▫ archived  @漢字レビュー (0DzNr1)
  next: dispatch restore 0DzNr1 brings it back""",
    "archive, several 80": """\
▫ archived  @漢字レビュー (0DzNr1)
▫ archived  @a name that is really quite long, longer than anybody would want it
  (0EqLd1): Codex has no history of it: it is archived here only
01a08340-5251-7d23-87b0-50f6e1911115, not managed
▫ archived  @builder (0BGeK1): it was archived already
  next: dispatch restore 0DzNr1 0EqLd1 01a08340-5251-7d23-87b0-50f6e1911115
    brings them back""",
    "archive, several 120": """\
▫ archived  @漢字レビュー (0DzNr1)
▫ archived  @a name that is really quite long, longer than anybody would want it (0EqLd1): Codex has no history of it:
  it is archived here only
01a08340-5251-7d23-87b0-50f6e1911115, not managed
▫ archived  @builder (0BGeK1): it was archived already
  next: dispatch restore 0DzNr1 0EqLd1 01a08340-5251-7d23-87b0-50f6e1911115 brings them back""",
    "restore": """\
○ idle  @builder (0BGeK1)""",
    "fork 80": """\
@a name that is really quite long, longer than anybody would want it is thread
  0EqLd1, forked from @builder (0BGeK1)
  next: dispatch send 0EqLd1 TEXT""",
    "fork 120": """\
@a name that is really quite long, longer than anybody would want it is thread 0EqLd1, forked from @builder (0BGeK1)
  next: dispatch send 0EqLd1 TEXT""",
    "revert": """\
@builder (0BGeK1): its newest turn is now 01a08341-cd1f-7e73-8721-3fc0d0c1b4a8
  files are as the turns left them""",
    "revert, to the beginning": """\
@builder (0BGeK1): no turn is left
  files are as the turns left them""",
    "compact": """\
● started  @builder (0BGeK1) is being summarised
  next: dispatch wait 0BGeK1""",
    "goal status 80": """\
● active  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true
while you do it
tokens   8,298 of 20,000 used, 11,702 left
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status paused ends it after the running turn""",
    "goal status 120": """\
● active  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true while you do it
tokens   8,298 of 20,000 used, 11,702 left
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status paused ends it after the running turn""",
    "goal status, none": """\
@builder (0BGeK1) has no goal""",
    "goal status, between turns 80": """\
● active  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true
while you do it
tokens   8,298 used, no budget
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status active --token-budget N""",
    "goal status, between turns 120": """\
● active  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true while you do it
tokens   8,298 used, no budget
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status active --token-budget N""",
    "goal status, used up 80": """\
■ budgetLimited  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true
while you do it
tokens   20,100 of 20,000 used, 0 left
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status active --token-budget 40100""",
    "goal status, used up 120": """\
■ budgetLimited  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true while you do it
tokens   20,100 of 20,000 used, 0 left
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status active --token-budget 40100""",
    "goal status, unmanaged 80": """\
✓ complete  01a08340-5251-7d23-87b0-50f6e1911115
Bring every test of the whole project to green, and keep the documentation true
while you do it
tokens   8,298 of 20,000 used, 11,702 left
time     12.5 s
changed  3m ago""",
    "goal status, unmanaged 120": """\
✓ complete  01a08340-5251-7d23-87b0-50f6e1911115
Bring every test of the whole project to green, and keep the documentation true while you do it
tokens   8,298 of 20,000 used, 11,702 left
time     12.5 s
changed  3m ago""",
    "goal set 80": """\
■ paused  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true
while you do it
tokens   8,298 of 20,000 used, 11,702 left
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status active""",
    "goal set 120": """\
■ paused  @builder (0BGeK1)
Bring every test of the whole project to green, and keep the documentation true while you do it
tokens   8,298 of 20,000 used, 11,702 left
time     12.5 s
changed  3m ago
  next: dispatch goal set 0BGeK1 --status active""",
    "goal clear": """\
✓ cleared  @builder (0BGeK1)
  next: dispatch stop 0BGeK1 ends its turn, which goes on""",
    "goal clear, none": """\
@builder (0BGeK1) had no goal""",
    "models 80": """\
MODEL                  EFFORT                   TIER  FOR
gpt-6.1-sol (default)  low [medium] high xhigh  fast  The newest one, for long …
gpt-6-luna             low [medium] high xhigh  -     Small and quick

configured in Codex: gpt-6.1-sol, high
Codex was not asked: codex is not running: the binary that [codex] bin names
  does not exist any more
as Codex said 3h ago""",
    "models 120": """\
MODEL                  EFFORT                   TIER  INPUT       FOR
gpt-6.1-sol (default)  low [medium] high xhigh  fast  text image  The newest one, for long work that nobody looks at wh…
gpt-6-luna             low [medium] high xhigh  -     text image  Small and quick

configured in Codex: gpt-6.1-sol, high
Codex was not asked: codex is not running: the binary that [codex] bin names does not exist any more
as Codex said 3h ago""",
    "models, none": """\
no model is known
  next: codex login""",
    "permissions": """\
PROFILE     ALLOWED  FROM           FOR
:read-only  yes      Codex
ci          no       configuration  What our CI may do

in ~/src""",
    "attach": """\
attached: @builder (0BGeK1)  ~/src
  next: dispatch tail 0BGeK1, or dispatch fork 0BGeK1 NAME to go on with it""",
    "attach, several 80": """\
attached: @a name that is really quite long, longer than anybody would want it
  (0EqLd1)  /srv/checkouts/of/the/project
managed already: @builder (0BGeK1)  ~/src""",
    "attach, several 120": """\
attached: @a name that is really quite long, longer than anybody would want it (0EqLd1)  /srv/checkouts/of/the/project
managed already: @builder (0BGeK1)  ~/src""",
    "sync, nothing new": """\
1200 histories, nothing new""",
    "sync": """\
1 history, 1 changed, 1 new: 1 text from 1 KiB in 0.0 s""",
    "sync, threads and problems 80": """\
THREAD                                NAME      INDEXED     NEWEST  FILE
0BGeK1                                @builder  ✓ complete  4m      …11115.jsonl
01a08341-cd1f-7e73-8721-3fc0d0c1b4a8  -         ~ unknown   -       -
1200 histories, 34 changed, 2 new, 1 moved, 1 gone: 5678 texts from 49.6 MiB in
  12.3 s
not read: /home/you/.codex/sessions/2026/05/04/0.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/1.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/2.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/3.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/4.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/5.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/6.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/7.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/8.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/9.jsonl: Permission denied
and 1 more: dispatch sync --json""",
    "sync, threads and problems 120": """\
THREAD                                NAME      INDEXED     NEWEST  FILE
0BGeK1                                @builder  ✓ complete  4m      …11-00-00-01a08340-5251-7d23-87b0-50f6e1911115.jsonl
01a08341-cd1f-7e73-8721-3fc0d0c1b4a8  -         ~ unknown   -       -
1200 histories, 34 changed, 2 new, 1 moved, 1 gone: 5678 texts from 49.6 MiB in 12.3 s
not read: /home/you/.codex/sessions/2026/05/04/0.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/1.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/2.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/3.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/4.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/5.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/6.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/7.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/8.jsonl: Permission denied
not read: /home/you/.codex/sessions/2026/05/04/9.jsonl: Permission denied
and 1 more: dispatch sync --json""",
    "watch 80": """\
… some events may be missing here
12:00:00  @builder (0BGeK1)  + thread.created
12:00:00  @builder (0BGeK1)  ● turn.started
12:00:00  @builder (0BGeK1)  · item.completed  codex: Done. This is a somewhat …
12:00:00  @builder (0BGeK1)  ✗ turn.failed  error The model is overloaded.
12:00:00  · codex.state  state degraded
12:00:00  @builder (0BGeK1)  · delivery.changed  message e1911115 is queued
12:00:00  @builder (0BGeK1)  ✓ delivery.changed  message e1911115 is done
12:00:00  @builder (0BGeK1)  · delivery.changed  message e1911115 is back in th…
12:00:00  @builder (0BGeK1)  ~ delivery.changed  message e1911115 is in doubt: …
12:00:00  @builder (0BGeK1)  ? request.opened  Codex asks to run a command, req…
12:00:00  @builder (0BGeK1)  · request.closed  request e1911115 is declined""",
    "watch 120": """\
… some events may be missing here
12:00:00  @builder (0BGeK1)  + thread.created
12:00:00  @builder (0BGeK1)  ● turn.started
12:00:00  @builder (0BGeK1)  · item.completed  codex: Done. This is a somewhat longer answer that goes on for more than…
12:00:00  @builder (0BGeK1)  ✗ turn.failed  error The model is overloaded.
12:00:00  · codex.state  state degraded
12:00:00  @builder (0BGeK1)  · delivery.changed  message e1911115 is queued
12:00:00  @builder (0BGeK1)  ✓ delivery.changed  message e1911115 is done
12:00:00  @builder (0BGeK1)  · delivery.changed  message e1911115 is back in the queue: it did not run
12:00:00  @builder (0BGeK1)  ~ delivery.changed  message e1911115 is in doubt: the machine was started anew while it wa…
12:00:00  @builder (0BGeK1)  ? request.opened  Codex asks to run a command, request e1911115
12:00:00  @builder (0BGeK1)  · request.closed  request e1911115 is declined""",
    "watch, nothing": """\
nothing has happened""",
    "trigger add": """\
name    review
id      fc3ee83c
when    turn_completed of 0BGeK1
action  send → @reviewer
text    Review what builder has just done.
state   ✓ on""",
    "trigger pause": """\
name    nightly-cleanup-of-everything
id      fc3ee83c
when    cron 0 3 * * * Europe/Berlin
action  send → @reviewer
text    Review what builder has just done.
state   ■ paused
next    2026-05-05T02:00:00+00:00 (in 14h)
last    ✗ failed 5m ago, no thread answers""",
    "trigger list 80": """\
NAME          ID        WHEN           ACTION         STATE     NEXT    LAST
review        fc3ee83c  turn_complet…  send → @revi…  ✓ on      -       -
nightly-cle…  fc3ee83c  cron 0 3 * *…  send → @revi…  ■ paused  in 14h  ✗ failed""",
    "trigger list 120": """\
NAME                           ID        WHEN                          ACTION            STATE     NEXT    LAST
review                         fc3ee83c  turn_completed of 0BGeK1      send → @reviewer  ✓ on      -       -
nightly-cleanup-of-everything  fc3ee83c  cron 0 3 * * * Europe/Berlin  send → @reviewer  ■ paused  in 14h  ✗ failed""",
    "trigger list, none": """\
no triggers
  next: dispatch trigger add --help""",
    "trigger rm": """\
removed trigger review (fc3ee83c)""",
    "daemon status 80": """\
state       ✓ ready
mode        offline: no language model is used
version     0.1.0 (build 84563177a560)
process     5137, up 2h, 49 MiB
codex       0.163.0 ~/.venv/lib/python3.11/site-packages/codex_cli_bin/bin/codex
            (from wheel)
app-server  process 5145, up 2h, 96 MiB, 0 restarts
skipped     2 lines of Codex
codex says  Codex could not find bubblewrap on PATH. Install it with your
            package manager.
threads     1 busy, 2 idle
triggers    1 of 2 enabled
plugins     18 loaded, 1 disabled, 1 failed: broken (dispatch plugins)
home        ~/.dispatch
log         ~/.dispatch/dispatchd.log""",
    "daemon status 120": """\
state       ✓ ready
mode        offline: no language model is used
version     0.1.0 (build 84563177a560)
process     5137, up 2h, 49 MiB
codex       0.163.0 ~/.venv/lib/python3.11/site-packages/codex_cli_bin/bin/codex (from wheel)
app-server  process 5145, up 2h, 96 MiB, 0 restarts
skipped     2 lines of Codex
codex says  Codex could not find bubblewrap on PATH. Install it with your package manager.
threads     1 busy, 2 idle
triggers    1 of 2 enabled
plugins     18 loaded, 1 disabled, 1 failed: broken (dispatch plugins)
home        ~/.dispatch
log         ~/.dispatch/dispatchd.log""",
    "daemon status, after trouble 120": """\
state       ✓ ready
mode        offline: no language model is used
version     0.1.0 (build 84563177a560)
process     5137, up 2h, 49 MiB
codex       0.163.0 ~/.venv/lib/python3.11/site-packages/codex_cli_bin/bin/codex (from wheel)
app-server  process 5145, up 2h, 96 MiB, 6 restarts
last exit   1m ago: the app-server exited with status -9: it did not answer 3 heartbeats
breaker     half_open, opened 1 of 3 times
heartbeat   2 missed, 0.4 s for the last answer
overloaded  12 times; 8 requests at a time now
skipped     2 lines of Codex
unknown     4 messages of Codex: item/sing, turn/dreamed
errors      1 messages of Codex (dispatch daemon log --daemon)
threads     1 busy, 2 idle
triggers    1 of 2 enabled
plugins     18 loaded, 1 disabled, 1 failed: broken (dispatch plugins)
home        ~/.dispatch
log         ~/.dispatch/dispatchd.log""",
    "daemon status, after trouble 80": """\
state       ✓ ready
mode        offline: no language model is used
version     0.1.0 (build 84563177a560)
process     5137, up 2h, 49 MiB
codex       0.163.0 ~/.venv/lib/python3.11/site-packages/codex_cli_bin/bin/codex
            (from wheel)
app-server  process 5145, up 2h, 96 MiB, 6 restarts
last exit   1m ago: the app-server exited with status -9: it did not answer 3
            heartbeats
breaker     half_open, opened 1 of 3 times
heartbeat   2 missed, 0.4 s for the last answer
overloaded  12 times; 8 requests at a time now
skipped     2 lines of Codex
unknown     4 messages of Codex: item/sing, turn/dreamed
errors      1 messages of Codex (dispatch daemon log --daemon)
threads     1 busy, 2 idle
triggers    1 of 2 enabled
plugins     18 loaded, 1 disabled, 1 failed: broken (dispatch plugins)
home        ~/.dispatch
log         ~/.dispatch/dispatchd.log""",
    "daemon status, degraded 80": """\
state       ✗ degraded
reason      no codex was found: [codex] bin is not set, DISPATCH_CODEX_BIN is
            not set, and there is none on PATH
fix         install Codex, or: pip install 'codex-dispatch[codex]'
version     0.1.0 (build 84563177a560)
process     5137, up 2h, 49 MiB
codex       not found
app-server  not running
threads     none
triggers    none
plugins     18 loaded
home        ~/.dispatch
log         ~/.dispatch/dispatchd.log""",
    "daemon status, degraded 120": """\
state       ✗ degraded
reason      no codex was found: [codex] bin is not set, DISPATCH_CODEX_BIN is not set, and there is none on PATH
fix         install Codex, or: pip install 'codex-dispatch[codex]'
version     0.1.0 (build 84563177a560)
process     5137, up 2h, 49 MiB
codex       not found
app-server  not running
threads     none
triggers    none
plugins     18 loaded
home        ~/.dispatch
log         ~/.dispatch/dispatchd.log""",
    "daemon log 80": """\
AGE  OP           THREAD  WHO               OUTCOME     DETAIL
5s   send         06z4V1  trigger:fc3ee83c  ok          Done. This is a somewha…
5s   trigger.add  -       human             validation""",
    "daemon log 120": """\
AGE  OP           THREAD  WHO               OUTCOME     DETAIL
5s   send         06z4V1  trigger:fc3ee83c  ok          Done. This is a somewhat longer answer that goes on for more th…
5s   trigger.add  -       human             validation""",
    "daemon log, none": """\
nothing was asked for yet""",
}


def shown(case: str, width: int, *, color: bool = False) -> str:
    render, output = CASES[case]
    return render(output, View(width, color, NOW, home="/home/you"))


def first_party() -> Iterator[Op[Any, Any]]:
    for module in iter_modules(dispatch_plugins.ops.__path__):
        hook = getattr(import_module(f"dispatch_plugins.ops.{module.name}"), "dispatch_ops", None)
        yield from hook(None) if hook else ()


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Times of day are local ones."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_people_see_exactly_this(case: str, width: int) -> None:
    assert shown(case, width) == EXPECTED.get(f"{case} {width}", EXPECTED.get(case))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_no_line_is_wider_than_the_terminal(case: str, width: int) -> None:
    lines = shown(case, width).splitlines()

    assert [line for line in lines if columns_of(line) > width] == []


@pytest.mark.parametrize("case", CASES)
def test_colours_change_nothing_but_colours(case: str) -> None:
    painted = shown(case, 80, color=True)

    assert PAINT.sub("", painted) == shown(case, 80)
    assert "\x1b" not in PAINT.sub("", painted)


def test_every_op_is_shown_here_or_with_the_threads() -> None:
    renders = {op.name: op.render for op in first_party()}

    here = {render for render, _ in CASES.values()} | ELSEWHERE

    assert len(renders) > 20
    assert {name for name, render in renders.items() if render not in here} == set()
