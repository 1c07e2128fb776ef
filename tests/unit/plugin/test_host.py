"""Declare: a plugin's contribution is taken whole or not at all."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from dispatch_core.api import Surface, TriggerKind, ValidationFailed, hookimpl
from dispatch_core.plugin.host import Host

STORAGE = "dispatch.v1.storage"


@pytest.fixture
def host(settings):
    return Host(settings)


def test_all_hooks_of_a_plugin_are_asked_once(host, make_module, make_report, make_op, kind_config):
    calls = []
    kind = TriggerKind(
        name="acme.never", summary="Never", config=kind_config, next_after=lambda *_: None
    )
    surface = Surface(name="web", summary="Serve", process="acme:main")

    def dispatch_ops(settings):
        calls.append("ops")
        yield make_op("acme.one")
        yield make_op("acme.two")

    module = make_module(
        dispatch_ops=dispatch_ops,
        dispatch_trigger_kinds=lambda: [kind],
        dispatch_surfaces=lambda settings: (surface,),
    )
    report = make_report()

    contribution = host.declare(report, module)

    assert calls == ["ops"]
    assert [op.name for op in contribution.ops] == ["acme.one", "acme.two"]
    assert (contribution.kinds, contribution.surfaces) == ([kind], [surface])
    assert report.state == "loaded"
    assert report.provides == {
        "ops": ["acme.one", "acme.two"],
        "kinds": ["acme.never"],
        "surfaces": ["web"],
        "storage": False,
    }


def test_a_plugin_without_hooks_contributes_nothing(host, make_module, make_report):
    report = make_report()

    contribution = host.declare(report, make_module())

    assert (contribution.ops, contribution.kinds, contribution.surfaces) == ([], [], [])
    assert report.state == "loaded"


def raises(error):
    def hook(settings):
        raise error

    return hook


def stops_half_way(op):
    def hook(settings):
        yield op
        raise RuntimeError("no more")

    return hook


@pytest.mark.parametrize(
    ("hooks", "reason"),
    [
        (lambda op: {"dispatch_ops": raises(RuntimeError("broken"))}, "RuntimeError: broken"),
        (lambda op: {"dispatch_ops": raises(SystemExit(3))}, "SystemExit: 3"),
        (lambda op: {"dispatch_ops": raises(AssertionError())}, "AssertionError"),
        (lambda op: {"dispatch_ops": stops_half_way(op)}, "RuntimeError: no more"),
        (lambda op: {"dispatch_ops": lambda: [op, None]}, "dispatch_ops returned None"),
        (lambda op: {"dispatch_ops": lambda: op}, "which is no list"),
        (lambda op: {"dispatch_ops": lambda: "acme"}, "returned 'a', which is not Op"),
        (lambda op: {"dispatch_trigger_kinds": lambda: [op]}, "which is not TriggerKind"),
        (lambda op: {"dispatch_surfaces": lambda: [op]}, "which is not Surface"),
        (lambda op: {"dispatch_opz": lambda: [op]}, "unknown hook 'dispatch_opz'"),
        (lambda op: {"dispatch_ops": lambda config: [op]}, "config"),
        (lambda op: {"dispatch_ops": lambda *, settings: [op]}, "keyword-only"),
        (
            lambda op: {
                "dispatch_ops": lambda: [op],
                "dispatch_surfaces": raises(ValueError("the last hook")),
            },
            "ValueError: the last hook",
        ),
    ],
)
def test_a_failing_plugin_leaves_nothing_behind(
    host, make_module, make_report, make_op, hooks, reason
):
    broken, sound = make_report("broken"), make_report("sound")
    op = make_op("acme.one")

    first = host.declare(broken, make_module(**hooks(op)))
    second = host.declare(sound, make_module(dispatch_ops=lambda: [op]))

    assert first is None
    assert (broken.state, broken.stage, broken.provides) == ("quarantined", "declare", {})
    assert reason in broken.reason
    assert broken.traceback
    assert second.ops == [op]
    assert sound.state == "loaded"


def test_an_interrupt_by_the_user_is_not_the_plugins_fault(host, make_module, make_report):
    with pytest.raises(KeyboardInterrupt):
        host.declare(make_report(), make_module(dispatch_ops=raises(KeyboardInterrupt())))


def test_a_module_counts_once(host, make_module, make_report, make_op):
    module = make_module(dispatch_ops=lambda: [make_op()])
    first, second = make_report("first"), make_report("second")

    host.declare(first, module)
    again = host.declare(second, module)

    assert again is None
    assert (first.state, second.state) == ("loaded", "quarantined")


def test_a_wrong_table_of_the_configuration_is_the_plugins_failure(make_module, make_report):
    class Broken:
        def section(self, name, model):
            raise ValidationFailed(f"config.toml: {name}.size: must be a number")

    report = make_report()
    host = Host(Broken())

    host.declare(
        report, make_module(dispatch_ops=lambda settings: settings.section("acme", BaseModel))
    )

    assert report.stage == "declare"
    assert "acme.size: must be a number" in report.reason


def test_the_storage_backend_is_the_first_that_is_offered(host, make_module, make_report, tmp_path):
    backend = object()
    host.declare(make_report("none", group=STORAGE), make_module(dispatch_storage=lambda: None))
    host.declare(
        make_report("some", group=STORAGE), make_module(dispatch_storage=lambda data_dir: backend)
    )

    assert host.storage(tmp_path) is backend


def test_a_withdrawn_plugin_is_not_asked_any_more(host, make_module, make_report, tmp_path):
    report = make_report(group=STORAGE)
    host.declare(report, make_module(dispatch_storage=lambda: tmp_path))

    host.withdraw(report)
    host.withdraw(report)

    assert host.storage(tmp_path) is None


def test_every_hook_call_can_be_traced(host, make_module, make_report):
    lines = []
    host.trace(lines.append)

    host.declare(make_report(), make_module(dispatch_ops=lambda: ()))

    assert any("dispatch_ops" in line for line in lines)


@pytest.mark.parametrize("group", [STORAGE, "dispatch.v1.surfaces"])
def test_ops_are_declared_in_the_group_that_the_daemon_loads_for_them(
    host, make_module, make_report, make_op, group
):
    report = make_report(group=group)

    host.declare(report, make_module(dispatch_ops=lambda: [make_op()]))

    assert (report.state, report.stage) == ("quarantined", "declare")
    assert f"belong into the group dispatch.v1.plugins, not {group}" in report.reason


def test_only_the_storage_group_offers_backends(host, make_module, make_report, tmp_path):
    backend = object()
    report = make_report("thief")
    host.declare(make_report("some", group=STORAGE), make_module(dispatch_storage=lambda: backend))

    host.declare(report, make_module(dispatch_storage=lambda: tmp_path))

    assert (report.state, report.stage) == ("quarantined", "declare")
    assert host.storage(tmp_path) is backend


def test_any_plugin_may_wrap_the_backend(host, make_module, make_report, tmp_path):
    module = make_module()

    @hookimpl(wrapper=True)
    def dispatch_storage():
        inner = yield
        return ["wrapped", inner]

    module.dispatch_storage = dispatch_storage
    host.declare(make_report("some", group=STORAGE), make_module(dispatch_storage=lambda: "inner"))

    host.declare(make_report("wrapper"), module)

    assert host.storage(tmp_path) == ["wrapped", "inner"]
