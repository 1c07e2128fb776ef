"""What a client is told in greeting, and how the daemon is asked to stop."""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import pytest

from dispatch_core.daemon.engine import hurry
from dispatch_core.daemon.health import Health
from dispatch_core.daemon.host import DaemonHost
from dispatch_core.daemon.paths import Paths
from dispatch_core.daemon.status import DaemonStatus
from dispatch_core.errors import DaemonStale

pytestmark = pytest.mark.anyio


STORAGE = SimpleNamespace(fault=None)


def make_host(tmp_path, *active):
    manifest = {"key": "k1", "build": "b1", "version": "1.0"}
    plugins = SimpleNamespace(reports=[], quarantined=list)
    status = DaemonStatus(Paths(str(tmp_path)), manifest, plugins, storage=STORAGE, offline=True)
    status.health = Health(state="ready")
    host = DaemonHost(status, None, [], {})
    host.open(None, lambda: active)
    return host


@pytest.mark.parametrize("expected", [None, "k1", "k1/b1"])
def test_a_client_of_the_same_build_and_plugins_is_greeted(tmp_path, expected):
    params = {} if expected is None else {"manifest": expected}

    greeting = make_host(tmp_path).hello(params)

    assert greeting["stale"] is False
    assert (greeting["state"], greeting["manifest"], greeting["offline"]) == ("ready", "k1", True)


@pytest.mark.parametrize("expected", ["k2", "k1/b2", "", 7])
def test_an_idle_daemon_of_another_build_says_it_can_be_replaced(tmp_path, expected):
    with pytest.raises(DaemonStale) as caught:
        make_host(tmp_path).hello({"manifest": expected})

    assert caught.value.details["stale"] is True
    assert caught.value.details["active_turns"] == 0


def test_a_busy_daemon_of_another_build_is_not_replaced(tmp_path):
    greeting = make_host(tmp_path, "key").hello({"manifest": "k2"})

    assert (greeting["stale"], greeting["active_turns"]) == (True, 1)


def test_a_daemon_with_a_session_is_not_replaced(tmp_path):
    host = make_host(tmp_path)
    host._open_sessions = 1

    assert host.hello({"manifest": "k2"})["sessions"] == 1


async def test_a_second_request_to_stop_shortens_the_patience_of_the_first(tmp_path):
    host = make_host(tmp_path)
    host.shutdown(None)

    with anyio.fail_after(5):
        with anyio.move_on_after(60) as patience:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hurry, host, patience)
                await anyio.wait_all_tasks_blocked()
                host.shutdown(0.0 if host.stopping.is_set() else None)
                await anyio.sleep_forever()

    assert patience.cancelled_caught


async def test_a_second_request_with_more_patience_changes_nothing(tmp_path):
    host = make_host(tmp_path)
    host.shutdown(1.0)

    with anyio.fail_after(5):
        with anyio.CancelScope(deadline=anyio.current_time() + 60) as patience:
            before = patience.deadline
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(hurry, host, patience)
                await anyio.wait_all_tasks_blocked()
                host.shutdown(100.0)
                host.shutdown(None)
                await anyio.wait_all_tasks_blocked()
                tasks.cancel_scope.cancel()

    assert patience.deadline == before


async def test_a_request_waits_until_the_ops_are_loaded(tmp_path):
    status = DaemonStatus(
        Paths(str(tmp_path)),
        {"key": "k1", "build": "b1", "version": "1.0"},
        SimpleNamespace(reports=[], quarantined=list),
        storage=STORAGE,
        offline=True,
    )
    host = DaemonHost(status, None, [{"name": "list", "schema_hash": "h", "intent": "read"}], {})
    answers = []

    async def call(name, args, caller, *, view):
        return name

    async def ask():
        answers.append(await host.call("list", {}, None, schema="h", view=None))

    ops = SimpleNamespace(call=call)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            greeting, early = host.hello({}), list(answers)
            host.open(ops, tuple)

    assert (greeting["state"], greeting["active_turns"], early) == ("starting", 0, [])
    assert answers == ["list"]


@pytest.mark.parametrize(("name", "schema"), [("list", "other"), ("new.op", "h")])
async def test_a_call_with_another_contract_is_refused_and_says_what_goes_on(
    tmp_path, name, schema
):
    host = make_host(tmp_path, "one", "two")
    host._entries = {"list": {"name": "list", "schema_hash": "h", "intent": "read"}}
    host.open(SimpleNamespace(), lambda: ("one", "two"))
    host._open_sessions = 1

    with pytest.raises(DaemonStale) as caught:
        await host.call(name, {}, None, schema=schema, view=None)

    assert "2 turns and 1 session" in caught.value.message
    assert "dispatch upgrade" in caught.value.hint
    assert caught.value.details["instance"] == host.instance
    assert (caught.value.details["active_turns"], caught.value.details["sessions"]) == (2, 1)
