"""A fresh virtual environment with dispatch in it, and a third party's plugin that pip adds: nothing of dispatch changes."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest

from dispatch_core.control.sync_client import Connection

OFFLINE = ("--no-index", "--no-build-isolation")
HELLO = {"protocol": 1, "client": "test", "version": "1", "manifest": None, "thread_id": None}


def finish(process):
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.fixture
def site(venv, make_site, pip):
    """The environment with a home of its own, whose daemon is stopped afterwards."""
    site = make_site([], DISPATCH_OFFLINE="1")
    yield site
    site.run("-m", "dispatch_core.boot", "down", "--grace", "0")
    finish(pip("uninstall", "--yes", "dispatch-echo", "broken-syntax-error", python=venv))


@pytest.mark.e2e
def test_an_installed_plugin_gives_its_op_to_every_surface(site, venv, workshop, pip):
    before = site.run("-m", "dispatch_core.boot", "echo", "say", "hi", "--json")
    assert before.returncode != 0

    finish(pip("install", *OFFLINE, workshop / "examples" / "dispatch-echo", python=venv))

    tests = site.run("-m", "pytest", "-q", str(workshop / "examples" / "dispatch-echo"))
    assert tests.returncode == 0, tests.stdout + tests.stderr
    (plugin,) = site.dispatch("plugins", "show", "echo", "--json")["plugins"]
    assert (plugin["dist"], plugin["state"]) == ("dispatch-echo", "loaded")
    script = replace(site, python=venv.parent / "dispatch", flags=())
    assert script.json("echo", "say", "hi", "--json") == {"text": "hi"}
    assert script.json("echo", "say", "hi", "--times", "3") == {"text": "hi hi hi"}
    with Connection.connect(site.home / "dispatchd.sock", timeout=5) as connection:
        connection.hello(HELLO, timeout=10)
        reply = connection.request("echo.say", {"text": "hi", "times": 2}, timeout=10)
    assert reply.result == {"text": "hi hi"}
    script.run("down", "--grace", "0")
    finish(pip("uninstall", "--yes", "dispatch-echo", python=venv))
    assert script.run("echo", "say", "hi").returncode != 0


def test_a_change_of_an_editable_plugin_is_noticed(site, venv, workshop, pip, tmp_path):
    source = tmp_path / "syntax-error"
    shutil.copytree(workshop / "examples" / "dispatch-broken" / "syntax-error", source)
    module = source / "broken_syntax_error.py"
    finish(pip("install", *OFFLINE, "--no-deps", "--editable", source, python=venv))
    broken = site.manifest()

    module.write_text("from dispatch_core.api import hookimpl\n")
    mended = site.manifest()
    module.write_text("raise RuntimeError('broken again')\n")
    broken_again = site.manifest()

    found = [
        {p["name"]: p for p in manifest["plugins"]}["syntax_error"]
        for manifest in (broken, mended, broken_again)
    ]
    assert [p["state"] for p in found] == ["quarantined", "loaded", "quarantined"]
    assert found[2]["reason"] == "RuntimeError: broken again"
    assert broken["key"] == mended["key"] == broken_again["key"]
