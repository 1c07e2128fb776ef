"""``new`` on the real Codex: what reaches the model, what is refused before there is anything, and what a dry run shows."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.offline.codex_home import write_codex_home
from dispatch_core.testing.daemon import Dispatch, temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.e2e

SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
TIER = {"id": "priority", "name": "Fast", "description": "2x speed"}


@dataclass
class Recorder:
    """A model on loopback that answers everything with one word and keeps the requests. requests: their bodies."""

    requests: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def serving(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                recorder.requests.append(json.loads(body))
                answer = sse()
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def sse() -> bytes:
    content = [{"type": "output_text", "text": "ok", "annotations": []}]
    item = {"type": "message", "role": "assistant", "id": "m1", "content": content}
    response = {"id": "r1", "object": "response", "status": "completed", "output": [item]}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress"}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": {**response, "usage": usage}},
    ]
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode()


@dataclass
class Online:
    """A daemon whose Codex is not in offline mode, but has no other model than the recorder."""

    dispatch: Dispatch
    recorder: Recorder

    def requests(self, thread: str) -> list[dict[str, Any]]:
        return [r for r in self.recorder.requests if r.get("prompt_cache_key") == thread]


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Online]:
    recorder = Recorder()
    codex = tmp_path_factory.mktemp("codex")
    with recorder.serving() as url:
        write_codex_home(codex, url)
        catalog = json.loads((codex / "models.json").read_text())
        for model in catalog["models"]:
            model["service_tiers"] = [TIER]
            model["supports_reasoning_summaries"] = True
        (codex / "models.json").write_text(json.dumps(catalog))
        with (codex / "config.toml").open("a") as file:
            file.write("\n[sandbox_workspace_write]\nnetwork_access = true\n")
        loopback = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        with temporary_home(CODEX_HOME=str(codex), DISPATCH_OFFLINE="0", **loopback) as dispatch:
            yield Online(dispatch, recorder)


@pytest.fixture
def project(shared: Dispatch, tmp_path: Path) -> Path:
    """A repository called parser, in which nothing is configured."""
    repo = tmp_path / "parser"
    (repo / ".git").mkdir(parents=True)
    (repo / ".git" / "HEAD").touch()
    (repo / ".dispatch").mkdir()
    return repo


def configure(repo: Path, text: str) -> Path:
    path = repo / ".dispatch" / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def waited(dispatch: Dispatch, thread: str) -> str | None:
    """Wait for a thread's turn to end, and return its answer."""
    [result] = dispatch.json("wait", thread, "--timeout", "60")["results"]
    assert result["outcome"] == "done"
    text: str | None = result["text"]
    return text


def registered(dispatch: Dispatch) -> set[str]:
    return {row["thread"]["handle"] for row in dispatch.json("list", "--archived")["threads"]}


def test_every_setting_reaches_the_model_with_every_turn(online: Online, tmp_path: Path) -> None:
    developer = tmp_path / "dev.md"
    developer.write_text("Developer says: be brief.", encoding="utf-8")
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    words = ["--base-instructions", "Base says: answer.", "--developer-file", str(developer)]
    words += ["--model", "offline-mini", "--effort", "high", "--service-tier", "fast"]
    words += ["--output-schema-file", str(schema), "--summary", "detailed"]

    made = online.dispatch.json("new", "all", "first", *words)
    waited(online.dispatch, "@all")
    online.dispatch.json("send", "@all", "second")
    waited(online.dispatch, "@all")

    requests = online.requests(made["thread"]["id"])
    assert len(requests) == 2
    for request, text in zip(requests, ("first", "second"), strict=True):
        said = json.dumps(request.get("instructions", "")) + json.dumps(request["input"])
        assert "Base says: answer." in said
        assert "Developer says: be brief." in said
        assert text in said
        assert request["model"] == "offline-mini"
        assert request["reasoning"]["effort"] == "high"
        assert request["service_tier"] == "priority"
        assert request["text"]["format"]["schema"] == SCHEMA


def test_nothing_given_is_nothing_sent(online: Online) -> None:
    made = online.dispatch.json("new", "plain", "hello")
    waited(online.dispatch, "@plain")

    [request] = online.requests(made["thread"]["id"])
    assert request["model"] == "offline-model"
    assert "service_tier" not in request
    assert "format" not in (request.get("text") or {})


def test_the_sandbox_keeps_what_the_user_configured_for_it(online: Online) -> None:
    words = ("--sandbox", "workspace-write", "--approval-policy", "never")

    online.dispatch.json("new", "networked", "first", *words)
    waited(online.dispatch, "@networked")
    online.dispatch.json("down")
    online.dispatch.json("send", "@networked", "second")
    waited(online.dispatch, "@networked")

    rollout = Path(online.dispatch.json("get", "@networked")["path"])
    lines = map(json.loads, rollout.read_text(encoding="utf-8").splitlines())
    turns = [line["payload"] for line in lines if line["type"] == "turn_context"]
    policies = [turn["sandbox_policy"] for turn in turns]
    assert len(policies) >= 2
    assert {policy["type"] for policy in policies} == {"workspace-write"}
    assert all(policy["network_access"] for policy in policies)


def test_a_preset_is_the_start_of_a_thread(shared: Dispatch, project: Path) -> None:
    path = configure(
        project,
        '[defaults]\nprefix = "[${DISPATCH.CWD.REPO}]"\nsandbox = "read-only"\n'
        '[presets.mini]\nmodel = "offline-mini"\n[presets.talk]\ntext = "From the preset"\n',
    )
    shared.json("config", "trust", str(path), "--yes")

    made = shared.json("new", "talker", "--preset", "mini", "--preset", "talk", cwd=project)
    text = waited(shared, made["thread"]["ref"])

    shown = shared.json("get", made["thread"]["ref"])
    assert made["thread"]["handle"] == "@[parser] talker"
    assert text == "Offline reply: From the preset"
    assert (shown["model"], shown["sandbox"]) == ("offline-mini", "read-only")


def test_an_untrusted_project_changes_nothing_that_matters(shared: Dispatch, project: Path) -> None:
    path = configure(
        project,
        '[codex]\nbin = "/bin/false"\n[defaults]\ntext = "Obey"\nsandbox = "danger-full-access"\n'
        'approval_policy = "never"\ncwd = "/"\nmodel = "offline-mini"\n',
    )

    made = shared.json("new", "careful", cwd=project)

    shown = shared.json("get", made["thread"]["ref"])
    assert (made["message_accepted"], made["turn"]) == (False, None)
    assert made["thread"]["cwd"] == str(project)
    assert (shown["model"], shown["sandbox"], shown["approval_policy"]) == (
        "offline-mini",
        None,
        None,
    )
    notes = "\n".join(made["notes"])
    for key in ("[codex]", "defaults.text", "defaults.sandbox", "defaults.cwd"):
        assert key in notes
    assert f"dispatch config trust {path}" in notes


def test_a_first_message_can_come_from_a_file_or_from_stdin(
    shared: Dispatch, tmp_path: Path
) -> None:
    (tmp_path / "prompt.md").write_text("From a file\n", encoding="utf-8")

    shared.json("new", "from-file", "--input-file", "prompt.md", cwd=tmp_path)
    shared.json("new", "from-stdin", "-", stdin="From stdin\n", cwd=tmp_path)

    for name, text in (("from-file", "From a file"), ("from-stdin", "From stdin")):
        assert waited(shared, f"@{name}") == f"Offline reply: {text}"


def test_an_ephemeral_thread_runs_and_leaves_no_history_on_disk(shared: Dispatch) -> None:
    made = shared.json("new", "passing", "hello once", "--ephemeral")
    shared.json("wait", made["thread"]["ref"], "--timeout", "60")

    asked = (shared.home / "offline" / "model.jsonl").read_text()
    rollouts = shared.home.glob(f"offline/codex/sessions/**/*{made['thread']['id']}*")
    assert "hello once" in asked
    assert list(rollouts) == []


def test_a_goal_is_set_with_the_thread(shared: Dispatch) -> None:
    made = shared.json("new", "striving", "--goal", "Reach the end", "--goal-budget", "1")

    assert (made["goal_set"], made["message_accepted"]) == (True, False)
    goal = shared.json("goal", "status", made["thread"]["ref"])["goal"]
    assert (goal["objective"], goal["token_budget"]) == ("Reach the end", 1)


REFUSED = {
    "model": ["--model", "offlin-mini"],
    "effort": ["--effort", "enormous"],
    "tier": ["--service-tier", "fast"],
    "provider": ["--model-provider", "nowhere"],
    "permissions": ["--permissions", ":nothing"],
    "both": ["--permissions", ":read-only", "--sandbox", "read-only"],
    "preset": ["--preset", "unheard-of"],
    "goal text": ["/goal win"],
    "goal and ephemeral": ["--goal", "win", "--goal-budget", "9", "--ephemeral"],
    "goal without bound": ["--goal", "win"],
    "prefix": ["--prefix", "${HOME}"],
    "empty": ["  "],
    "directory": ["--cwd", "/no/such/place"],
    "file": ["--input-file", "/no/such/file"],
    "picture": ["hi", "--image", "/no/such/picture.png"],
    "binary": ["--developer-file", "/proc/self/exe"],
    "both texts": ["hi", "--input-file", "/etc/hostname"],
}


def test_every_refusal_leaves_nothing_behind(shared: Dispatch) -> None:
    before = registered(shared)

    codes = {name: shared.error("new", "refused", *words) for name, words in REFUSED.items()}

    assert {name: e["code"] for name, e in codes.items()} == dict.fromkeys(REFUSED, "validation")
    assert all(error["hint"] for error in codes.values())
    assert registered(shared) == before
    log = shared.home / "offline" / "model.jsonl"
    assert not log.exists() or "/goal win" not in log.read_text()


def test_a_dry_run_shows_sources_and_makes_nothing(shared: Dispatch, project: Path) -> None:
    path = configure(project, '[presets.mini]\nmodel = "offline-mini"\n')
    before = registered(shared)

    planned = shared.json("new", "later", "Do it", "--preset", "mini", "--dry-run", cwd=project)

    sources = {row["name"]: row["source"] for row in planned["plan"]["settings"]}
    assert sources["model"] == f"preset mini in {path}"
    assert sources["cwd"] == "built-in"
    assert sources["effort"] == "codex"
    assert planned["plan"]["would_send"] is True
    assert planned["thread"] is None
    assert registered(shared) == before
