"""A rule matches the one plain command it names, and nothing that might be another one."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.appserver.requests import FileChanges, read_request
from dispatch_core.contracts.records import Source, ThreadRecord, ThreadSettings, ThreadStatus
from dispatch_core.engine.requests.rules import allowing, simple_command
from dispatch_core.errors import ValidationFailed
from dispatch_core.settings import AllowRule, PolicySection, Settings

NOW = datetime(2026, 5, 4, 9, 0, tzinfo=UTC)
LATER = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
COMMAND = "item/commandExecution/requestApproval"
THREAD = ThreadRecord(
    key="key",
    provider="codex",
    native_id="native",
    ref="0AAAA1",
    handle="@builder",
    title=None,
    source=Source.OWN,
    status=ThreadStatus.BUSY,
    cwd="/",
    settings=ThreadSettings(sandbox="danger-full-access"),
    created_at=NOW,
    updated_at=NOW,
)
SIMPLE = [
    "git status",
    "git status -s",
    "  git   status  ",
    "git 'status'",
    'git "status"',
    "git status --porcelain=v2",
    "git status 'a b; c $(d)'",
    'git status "a b; | c"',
]
DOUBTFUL = [
    "git status; rm -rf /",
    "git status && rm x",
    "git status || rm x",
    "git status | sh",
    "git status & rm x",
    "git status > /etc/passwd",
    "git status < x",
    "git status $(rm x)",
    "git status `rm x`",
    "git status $HOME",
    'git status "$(rm x)"',
    'git status "`rm x`"',
    'git status "a\\" b"',
    "git status \nrm x",
    "git status\trm",
    "git status\r",
    "git status *",
    "git status ?",
    "git status [a]",
    "git status {a,b}",
    "git status ~",
    "git status !1",
    "git status #x",
    "git status ^x",
    "git status =ls",
    "git status %1",
    "git status \\x",
    "git status 'unfinished",
    "GIT_DIR=/x git status",
    "PATH=/tmp git status",
    "(git status)",
    "{ git status; }",
    "! git status",
    "git\x00status",
    "git status \u202e",
    "git\u00a0status",
    "git 'sta\ntus'",
    "",
    " ",
]


def asked(command, **more):
    params = {
        "threadId": "native",
        "turnId": "t",
        "itemId": "i",
        "command": command,
        "cwd": "/",
        "environmentId": "local",
        "commandActions": [{"type": "unknown", "command": "x"}],
        **more,
    }
    return read_request(COMMAND, params, FileChanges())


def through_shell(script, shell="/bin/bash", flag="-lc"):
    return f"{shell} {flag} {shlex.quote(script)}"


def decide(command="/bin/bash -lc 'git status'", thread=THREAD, rule=None, **more):
    rule = {"argv": ("git", "status"), "cwd": "/", "expires": LATER, **(rule or {})}
    policy = PolicySection(allow=(AllowRule(**rule),))
    return allowing(policy, asked(command, **more), thread, NOW)


@pytest.mark.parametrize("script", SIMPLE)
def test_a_plain_command_is_let_through(script):
    assert decide(through_shell(script)) == 1


@pytest.mark.parametrize("script", DOUBTFUL)
def test_a_command_that_a_shell_could_make_more_of_is_not(script):
    assert simple_command(through_shell(script)) is None
    assert decide(through_shell(script)) is None


@pytest.mark.parametrize(
    "command",
    [
        "/tmp/bash -lc 'git status'",
        "bash -lc 'git status'",
        "/bin/bash -ic 'git status'",
        "/bin/bash -lc 'git status' extra",
        "/bin/bash 'git status'",
        "/usr/bin/env git status",
        "git-status",
        "git",
        "'git status'",
        "git stat",
        "git status extra; rm x",
        "/bin/bash -lc",
        "'",
        None,
        7,
    ],
)
def test_another_command_is_not_let_through(command):
    assert decide(command) is None


def test_a_command_without_a_shell_is_compared_word_by_word():
    assert decide("git status 'a b'") == 1


@pytest.mark.parametrize(
    "more",
    [
        {"additionalPermissions": {"network": {"enabled": True}}},
        {"networkApprovalContext": {"host": "x", "protocol": "https"}},
        {"kind": "writeStdin"},
        {"environmentId": "elsewhere"},
        {"commandActions": [{"type": "unknown"}, {"type": "unknown"}]},
        {"cwd": None},
        {"cwd": "relative"},
    ],
)
def test_what_asks_for_more_than_to_run_a_command_is_not_let_through(more):
    assert decide(**more) is None


@pytest.mark.parametrize(
    "rule",
    [
        {"expires": NOW},
        {"argv": ("git", "push")},
        {"argv": ("git", "status", "-s")},
        {"cwd": "/usr"},
        {"thread": "0BBBB1"},
    ],
)
def test_a_rule_for_something_else_does_not_count(rule):
    assert decide(rule=rule) is None


@pytest.mark.parametrize("name", ["0AAAA1", "native"])
def test_a_rule_for_one_thread_counts_there(name):
    assert decide(rule={"thread": name}) == 1


@pytest.mark.parametrize("sandbox", ["workspace-write", "read-only", None])
def test_no_rule_counts_where_there_is_a_sandbox_to_leave(sandbox):
    thread = replace(THREAD, settings=ThreadSettings(sandbox=sandbox))

    assert decide(thread=thread) is None


def test_a_link_does_not_lead_into_the_directory_of_a_rule(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "way-out").symlink_to(outside)
    (tmp_path / "way-in").symlink_to(inside)
    rule = {"cwd": str(inside)}

    assert decide(rule=rule, cwd=str(inside / "way-out")) is None
    assert decide(rule=rule, cwd=str(inside / ".." / "outside")) is None
    assert decide(rule=rule, cwd=str(tmp_path / "way-in")) == 1


@given(st.text(max_size=30))
def test_no_script_is_simple_unless_it_is_the_words_it_seems_to_be(script):
    words = simple_command(f"/bin/sh -c {shlex.quote(script)}")

    if words is not None:
        assert words == shlex.split(script)
        assert not set(";&|<>()`\\\n*?[]{}~!#") & set(_unquoted(script))


def _unquoted(script):
    """Return what of a script is outside of quotes, by another way than the one that is tested."""
    left, quote = [], ""
    for char in script:
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        else:
            left.append(char)
    return "".join(left)


@pytest.mark.parametrize(
    "rule",
    [
        'argv = []\ncwd = "/"\nexpires = 2026-06-01T00:00:00Z',
        'argv = ["ls", ""]\ncwd = "/"\nexpires = 2026-06-01T00:00:00Z',
        'argv = ["ls"]\ncwd = "here"\nexpires = 2026-06-01T00:00:00Z',
        'argv = ["ls"]\ncwd = "/"\nexpires = 2026-06-01T00:00:00',
        'argv = ["ls"]\ncwd = "/"',
        'argv = ["ls"]\ncwd = "/"\nexpires = 2026-06-01T00:00:00Z\nthread = "@me"',
        'argv = ["ls"]\ncwd = "/"\nexpires = 2026-06-01T00:00:00Z\nforever = true',
        'argv = "ls"\ncwd = "/"\nexpires = 2026-06-01T00:00:00Z',
    ],
)
def test_a_rule_that_is_no_rule_is_refused_by_name(tmp_path, rule):
    config = tmp_path / "config.toml"
    config.write_text(f"[[policy.allow]]\n{rule}\n")

    with pytest.raises(ValidationFailed, match=r"policy\.allow"):
        Settings.read(config).section("policy", PolicySection)


def test_a_rule_is_read(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text(
        '[policy]\nrequests = "deny"\nrequest_timeout = 60\n'
        '[[policy.allow]]\nargv = ["git", "status"]\ncwd = "~/src"\nexpires = 2026-06-01T00:00:00Z\n'
    )

    policy = Settings.read(config).section("policy", PolicySection)

    expires = datetime(2026, 6, 1, tzinfo=UTC)
    assert policy.allow == (AllowRule(argv=("git", "status"), cwd="~/src", expires=expires),)
    assert (policy.requests, policy.attached_requests, policy.request_timeout) == (
        "deny",
        "deny",
        60,
    )
