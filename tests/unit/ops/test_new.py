"""What ``new`` makes of options and configuration before there is a thread, and of failures after that."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.config.files import Places, read_project
from dispatch_core.config.trust import TrustStore, bundle_of
from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.context import OpContext
from dispatch_core.contracts.surface import OpReply
from dispatch_core.contracts.view import View
from dispatch_core.errors import (
    CodexError,
    OutcomeUnknown,
    PartialSuccess,
    ValidationFailed,
)
from dispatch_plugins.ops import new
from dispatch_plugins.ops.new.contract import NewInput
from dispatch_plugins.ops.new.draft import draft
from dispatch_plugins.ops.new.naming import full_name
from dispatch_plugins.ops.new.render import render_new

pytestmark = pytest.mark.anyio

VIEW = View(80, color=False, now=datetime(2026, 5, 5, tzinfo=UTC))


@pytest.fixture
def places(tmp_path):
    home = tmp_path / ".dispatch"
    home.mkdir(mode=0o700)
    return Places(home=home, user=home / "config.toml")


class Ops:
    """The other ops, as ``new`` sees them. calls: what was asked of them. error: what they answer with."""

    def __init__(self):
        self.calls, self.error = [], None

    def ops(self, surface):
        return [SimpleNamespace(name="goal.set")]

    async def call(self, name, args, caller, *, view=None):
        self.calls.append((name, args))
        if self.error is not None:
            raise self.error
        return OpReply(result={})


@pytest.fixture
def caller(world, places, monkeypatch):
    monkeypatch.setenv("DISPATCH_HOME", str(places.home))
    known = {field.name for field in dataclasses.fields(OpContext)}
    parts = {
        "caller": HUMAN,
        "lanes": world.lanes,
        "deliveries": world.lanes.deliveries,
        "codex": world.codex,
        "store": world.storage,
        "events": world.events,
        "clock": world.clock,
        "ops": Ops(),
    }
    return OpContext(**{name: parts.get(name) for name in known})


def make(**fields):
    return NewInput(**{"name": "x", "cwd": "/", **fields})


# Names


@pytest.mark.parametrize(
    ("given_name", "prefix", "expected"),
    [
        ("builder", None, "builder"),
        (" @ builder ", None, "builder"),
        ("builder", "", "builder"),
        ("builder", "[x]", "[x] builder"),
        ("[x] builder", "[x]", "[x] builder"),
        ("@[x] builder", "[x]", "[x] builder"),
        ("[x]", "[x]", "[x]"),
        ("[x]builder", "[x]", "[x] [x]builder"),
        ("b", "[${DISPATCH.CWD.REPO}/${DISPATCH.CWD.BASENAME}]", "[repo/src] b"),
        ("b", "${DISPATCH.PRESET}:", "last: b"),
    ],
)
def test_a_prefix_stands_before_the_name_once(tmp_path, given_name, prefix, expected):
    inner = tmp_path / "repo" / "src"
    inner.mkdir(parents=True)
    (tmp_path / "repo" / ".git").write_text("gitdir: elsewhere")

    assert full_name(given_name, prefix, inner, ["first", "last"]) == expected


@pytest.mark.parametrize(
    ("prefix", "says"),
    [
        ("${HOME}", "no variable"),
        ("${DISPATCH.CWD.REPO", "no variable"),
        ("${}", "no variable"),
        ("${DISPATCH.PRESET}", "needs a preset"),
        ("a\x1b[1m", "cannot stand"),
        ("@", "cannot stand"),
        ("x" * 100, "characters"),
    ],
)
def test_a_prefix_that_makes_no_name_is_refused(prefix, says):
    with pytest.raises(ValidationFailed, match=says):
        full_name("builder", prefix, Path("/"), [])


@given(st.text(max_size=40), st.text(max_size=40))
def test_a_name_with_its_prefix_gets_it_no_second_time(name, prefix):
    try:
        once = full_name(name, prefix, Path("/"), [])
    except ValidationFailed:
        return

    assert full_name(once, prefix, Path("/"), []) == once


# Drafts


def test_what_is_given_nowhere_is_left_to_codex(places):
    made = draft(make(text="hi"), places)

    settings = dataclasses.asdict(made.settings)
    assert {key for key, value in settings.items() if value is not None} == set()
    assert (made.cwd, made.message.text, made.ephemeral) == ("/", "hi", False)


def test_configuration_and_options_become_the_settings(places, tmp_path):
    (tmp_path / "dev.md").write_text("\ufeffdev", encoding="utf-8")
    places.user.write_text(
        "[defaults]\nsandbox = 'read-only'\nsummary = 'none'\nephemeral = true\n"
        "developer_file = 'dev.md'\ntext = 'from the file'\noutput_schema = {type = 'object'}\n"
    )

    made = draft(make(summary="detailed", base_instructions="base"), places)

    settings = made.settings
    assert (settings.sandbox, settings.summary) == ("read-only", "detailed")
    assert (settings.base_instructions, settings.developer_instructions) == ("base", "dev")
    assert settings.output_schema == {"type": "object"}
    assert (made.ephemeral, made.message.text) == (True, "from the file")


def test_a_configured_directory_counts_unless_one_is_given(places, tmp_path):
    places.user.write_text(f"[defaults]\ncwd = '{tmp_path}'\n")

    configured = draft(make(cwd=None, caller_cwd="/"), places)
    asked = draft(make(cwd="/", caller_cwd=str(tmp_path)), places)

    assert configured.cwd == str(tmp_path)
    assert (asked.cwd, asked.cwd_source) == ("/", "option")


def test_without_any_directory_one_is_asked_for(places):
    with pytest.raises(ValidationFailed) as caught:
        draft(make(cwd=None), places)

    assert "--cwd" in caught.value.hint


@pytest.mark.parametrize(
    ("field", "content", "says"),
    [
        ("base_file", None, "cannot read"),
        ("base_file", b"\xff\xfe", "not UTF-8: byte 0 is 0xff"),
        ("developer_file", b"PK\0\x03", "binary file"),
        ("input_file", b" \n", "is empty"),
        ("input_file", b"x" * 1_048_577, "1,048,577 characters"),
        ("input_file", b"x" * 4_194_305, "larger than"),
        ("output_schema_file", b"{", "is not JSON"),
        ("output_schema_file", b"[]", "not a JSON object"),
        ("output_schema_file", b'{"a": NaN}', "is not JSON"),
        ("output_schema_file", b'{"a": "\\ud800"}', "cannot be sent"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_by_name(places, tmp_path, field, content, says):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(ValidationFailed) as caught:
        draft(make(**{field: str(path)}), places)

    assert says in caught.value.message
    assert str(path) in caught.value.message
    assert field in caught.value.message


def test_a_trusted_project_that_names_a_file_that_is_not_there_is_refused(places, tmp_path):
    config = tmp_path / "repo" / ".dispatch" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[defaults]\ndeveloper_file = "prompt.md"\n')
    TrustStore(places.trust).add(bundle_of(read_project(config)), datetime(2026, 5, 5, tzinfo=UTC))

    with pytest.raises(ValidationFailed, match=r"cannot read .*prompt\.md") as caught:
        draft(make(cwd=str(tmp_path / "repo")), places)

    assert "dispatch config trust" in caught.value.hint


def test_a_directory_in_place_of_a_file_is_refused(places, tmp_path):
    with pytest.raises(ValidationFailed, match="is not a file"):
        draft(make(base_file=str(tmp_path)), places)


@pytest.mark.parametrize(
    ("fields", "field", "hint"),
    [
        ({"text": "  /goal win"}, "text", "--goal"),
        ({"text": "a", "input_file": "/dev/null"}, "input_file", "one of the two"),
        ({"image": ["/a.png"]}, "image", "TEXT"),
        ({"goal": "win", "goal_budget": 5, "ephemeral": True}, "goal", "leave out"),
        ({"goal": "win"}, "goal", "--goal-budget"),
        ({"goal": " ", "goal_budget": 5}, "goal", "in short"),
        ({"goal": "x" * 4001, "goal_budget": 5}, "goal", "in short"),
        ({"goal_budget": 5}, "goal_budget", "--goal"),
        ({"goal_unbounded": True}, "goal_unbounded", "--goal"),
        ({"permissions": ":workspace", "sandbox": "read-only"}, "permissions", "one of the two"),
        ({"cwd": "relative"}, "cwd", "whole path"),
        ({"cwd": "/no/such/place"}, "cwd", "--cwd"),
        ({"output_schema": {"a": ["\ud800"]}}, "output_schema", "JSON schema"),
    ],
)
def test_what_contradicts_itself_is_refused_by_field(places, fields, field, hint):
    with pytest.raises(ValidationFailed) as caught:
        draft(make(**fields), places)

    assert caught.value.details["field"] == field
    assert hint in caught.value.hint


def test_an_option_that_is_passed_over_is_named(places):
    made = draft(make(base_instructions="hi", base_file="/b.md"), places)

    assert made.settings.base_instructions == "hi"
    assert made.notes == ("base_file is not used: text in the same place comes before a file",)


# Effects


async def test_the_goal_is_set_before_the_message_is_sent(world, caller):
    async with world.running():
        made = await new.new(caller, make(text="hello", goal="win", goal_budget=9))

    ref = made.thread.ref
    assert caller.ops.calls == [
        ("goal.set", {"thread": ref, "objective": "win", "token_budget": 9})
    ]
    assert (made.goal_set, made.message_accepted) == (True, True)
    assert "its goal is set" in render_new(made, VIEW)


async def test_a_goal_that_fails_leaves_the_thread_and_says_what_to_do(world, caller):
    caller.ops.error = CodexError("no goals today")
    async with world.running():
        with pytest.raises(PartialSuccess) as caught:
            await new.new(caller, make(text="hello", goal="win", goal_unbounded=True))
        [thread] = await world.storage.threads.list()

    assert caught.value.hint == f"dispatch goal set {thread.ref} OBJECTIVE"
    assert caught.value.details == {
        "thread": thread.ref,
        "goal_set": False,
        "error": caller.ops.error.to_dict(),
    }
    assert "turn/start" not in world.codex.methods()


async def test_a_first_message_that_fails_leaves_the_thread_and_says_what_to_do(world, caller):
    async def refuse(params):
        raise CodexError("not now")

    world.codex.on["turn/start"] = refuse
    async with world.running():
        with pytest.raises(PartialSuccess) as caught:
            await new.new(caller, make(text="hello"))
        [thread] = await world.storage.threads.list()

    assert caught.value.hint == f"dispatch send {thread.ref} TEXT"
    assert "not now" in caught.value.message


async def test_a_first_message_of_unknown_fate_stays_unknown(world, caller, lost_answer):
    async def die(params):
        raise lost_answer

    world.codex.on["turn/start"] = die
    async with world.running():
        with pytest.raises(OutcomeUnknown):
            await new.new(caller, make(text="hello"))


async def test_a_message_joins_the_turn_that_the_goal_has_started(world, caller):
    class Pursuing(Ops):
        async def call(self, name, args, caller, *, view=None):
            [thread] = await world.storage.threads.list()
            world.codex.running[thread.native_id] = "turn-9"
            world.started(thread, "turn-9")
            return await super().call(name, args, caller, view=view)

    async def steer(params):
        [thread] = await world.storage.threads.list()
        world.user_message(thread, "turn-9", params["clientUserMessageId"])
        return {"turnId": "turn-9"}

    world.codex.on["turn/steer"] = steer
    async with world.running():
        made = await new.new(
            dataclasses.replace(caller, ops=Pursuing()), make(text="hi", goal="win", goal_budget=9)
        )

    steered = dict(world.codex.calls)["turn/steer"]
    assert [part["text"] for part in steered["input"]] == ["hi"]
    assert "turn/start" not in world.codex.methods()
    assert (made.turn.id, made.message_accepted) == ("turn-9", True)


async def test_an_unknown_provider_is_a_mistake_of_the_caller(world, caller):
    async def refuse(params):
        raise CodexError("failed to load configuration: Model provider `nope` not found")

    async def nothing(params):
        return {"config": {}, "data": []}

    world.codex.on |= {"thread/start": refuse, "config/read": nothing, "model/list": nothing}
    async with world.running():
        with pytest.raises(ValidationFailed) as caught:
            await new.new(caller, make(model_provider="nope"))

        assert await world.storage.threads.list() == ()
    assert "[model_providers.nope]" in caught.value.hint


async def test_a_dry_run_asks_codex_for_nothing_and_changes_nothing(world, caller, places):
    places.user.write_text("[defaults]\nprefix = '[me]'\nsandbox = 'read-only'\n")
    async with world.running():
        planned = await new.new(caller, make(text="hello", dry_run=True))

        assert await world.storage.threads.list() == ()
    assert world.codex.calls == []
    assert (planned.thread, planned.turn, planned.message_accepted) == (None, None, False)
    assert (planned.plan.handle, planned.plan.would_send) == ("@[me] x", True)
    [text] = planned.plan.texts
    assert (text.bytes, text.sha256[:8], text.source) == (5, "2cf24dba", "option")
    sources = {setting.name: setting.source for setting in planned.plan.settings}
    assert sources["sandbox"] == f"user config {places.user}"
    assert sources["model"] == "codex"


async def test_a_plan_fits_eighty_columns_and_shows_no_control_characters(world, caller, places):
    deep = places.home.parent / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    places.user.write_text("[defaults]\nprefix = '[${DISPATCH.CWD.BASENAME}]'\n")
    async with world.running():
        planned = await new.new(
            caller, make(text="a\x1b[31mb", cwd=str(deep), prefix="", dry_run=True)
        )

    shown = render_new(planned, VIEW)
    table = shown.partition("user config:")[0]
    assert max(map(len, table.splitlines())) <= 80
    assert "\x1b" not in shown
    assert "nothing was done; the message would be sent" in shown
