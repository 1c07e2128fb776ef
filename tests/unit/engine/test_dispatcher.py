"""One way in: validation, deadline, broken handlers, audit and text for people."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import anyio
import pytest
from pydantic import Field

from dispatch_core.contracts.caller import HUMAN, Caller
from dispatch_core.contracts.op import Example, Intent, Op, OpInput, OpOutput
from dispatch_core.engine.dispatcher import Dispatcher
from dispatch_core.errors import (
    DaemonUnreachable,
    DispatchError,
    LaneBusy,
    OutcomeUnknown,
    PluginFault,
    TimedOut,
    UnknownOp,
    ValidationFailed,
)

pytestmark = pytest.mark.anyio


class PokeInput(OpInput):
    thread: str = Field(description="Which.", min_length=1)
    times: int = Field(1, description="How often.", ge=1)
    text: str | None = Field(None, description="What.")


class PokeOutput(OpOutput):
    times: int = Field(description="How often.")


async def poke(context, request):
    return PokeOutput(times=request.times)


class Setup:
    """A dispatcher with one op, whose audit log is a real one."""

    def __init__(self, world, handler=poke, *, first_party=True, **changes):
        self.storage = world.storage
        fields = {
            "name": "acme.poke",
            "summary": "Poke a thread",
            "noun": "acme",
            "input": PokeInput,
            "output": PokeOutput,
            "handler": handler,
            "intent": Intent.WRITE,
            "idempotent": False,
            "examples": (Example(input={"thread": "x"}, output={}),),
        }
        op = Op(**(fields | changes))
        entry = {
            "name": op.name,
            "summary": op.summary,
            "noun": op.noun,
            "intent": op.intent.value,
            "idempotent": op.idempotent,
            "timeout": op.timeout,
            "schema": {},
            "output_schema": {},
            "schema_hash": "h",
            "examples": [],
            "plugin": "acme",
            "dist": "acme-dispatch",
            "hidden_from": sorted(op.hidden_from),
        }
        owner = SimpleNamespace(name="acme", dist="acme-dispatch", first_party=first_party)
        catalog = SimpleNamespace(ops={op.name: op}, owners={op.name: owner})
        self.dispatcher = Dispatcher(
            catalog,
            [entry],
            lambda caller: SimpleNamespace(caller=caller, store=world.storage, clock=world.clock),
        )

    async def call(self, args=None, caller=HUMAN, **options):
        args = {"thread": "@x"} if args is None else args
        return await self.dispatcher.call("acme.poke", args, caller, **options)

    async def audit(self):
        return [(a.op, a.outcome, a.thread, a.detail) for a in await self.storage.actions.latest(9)]


async def test_a_call_is_validated_run_and_recorded(world):
    setup = Setup(world)
    caller = Caller(principal="agent:t", surface="mcp", trigger_id="tr")

    reply = await setup.call({"thread": "@x", "times": 3, "text": "t" * 500}, caller)

    assert (reply.result, reply.text) == ({"times": 3}, None)
    assert await setup.audit() == [("acme.poke", "ok", "@x", "t" * 120)]
    [action] = await world.storage.actions.latest(1)
    assert (action.principal, action.trigger_id) == ("agent:t", "tr")


async def test_wrong_input_is_refused_field_by_field(world):
    setup = Setup(world)

    with pytest.raises(ValidationFailed) as caught:
        await setup.call({"thread": "", "times": 0, "lane": "x"})

    fields = [problem["field"] for problem in caught.value.details["fields"]]
    assert fields == ["thread", "times", "lane"]
    assert all(f"{name}: " in caught.value.message for name in fields)
    assert caught.value.message.startswith("acme poke: ")
    assert caught.value.hint == "dispatch acme poke --help"
    assert (await setup.audit())[0][1] == "validation"


async def test_an_unknown_op_is_refused_with_its_neighbour(world):
    with pytest.raises(UnknownOp) as caught:
        await Setup(world).dispatcher.call("acme.pok", {}, HUMAN)

    assert "acme.poke" in caught.value.hint


@pytest.mark.parametrize(
    ("intent", "error"), [(Intent.READ, TimedOut), (Intent.WRITE, OutcomeUnknown)]
)
async def test_a_deadline_says_whether_it_may_have_happened(world, intent, error):
    async def hang(context, request):
        await anyio.sleep_forever()

    with pytest.raises(error):
        await Setup(world, hang, intent=intent, timeout=0.01).call()


async def test_reads_are_not_recorded(world):
    setup = Setup(world, intent=Intent.READ)

    await setup.call()

    assert await setup.audit() == []


@pytest.mark.parametrize("limit", [None, 5.0])
async def test_a_handlers_own_timeout_is_its_own_failure(world, limit):
    async def impatient(context, request):
        raise TimeoutError

    with pytest.raises(DispatchError) as caught:
        await Setup(world, impatient, timeout=limit).call()

    assert caught.value.code == "internal"


@pytest.mark.parametrize("failure", [RuntimeError("no"), SystemExit(3), KeyError("k")])
@pytest.mark.parametrize(("first_party", "code"), [(True, "internal"), (False, "plugin")])
async def test_a_broken_handler_costs_one_call_and_names_its_plugin(
    world, caplog, failure, first_party, code
):
    async def broken(context, request):
        raise failure

    setup = Setup(world, broken, first_party=first_party)
    with caplog.at_level(logging.ERROR), pytest.raises(DispatchError) as caught:
        await setup.call()

    assert caught.value.code == code
    assert type(failure).__name__ in caught.value.message
    assert ("acme-dispatch" in caught.value.message) is not first_party
    assert "acme.poke" in caplog.text
    assert (await setup.audit())[0][1] == code


async def test_an_error_of_ours_passes_through_unchanged(world):
    async def busy(context, request):
        raise LaneBusy("0AAAA1", "t")

    setup = Setup(world, busy)
    with pytest.raises(LaneBusy):
        await setup.call()

    assert (await setup.audit())[0][1] == "lane_busy"


async def test_an_output_of_another_type_is_the_plugins_fault(world):
    async def wrong(context, request):
        return {"times": 1}

    with pytest.raises(PluginFault, match="returned dict, not PokeOutput"):
        await Setup(world, wrong, first_party=False).call()


async def test_an_op_without_a_text_answers_with_its_result(world):
    reply = await Setup(world).call(view={"width": 40, "color": False, "text_only": True})

    assert (reply.result, reply.text) == ({"times": 1}, None)


async def test_text_is_rendered_only_when_asked_for(world):
    setup = Setup(world, render=lambda output, view: f"{output.times} {view.width} {view.color}")

    plain = await setup.call()
    shown = await setup.call(view={"width": 40, "color": True})

    assert plain.text is None
    assert shown.text == "1 40 True"


async def test_whoever_wants_only_the_text_gets_no_result_beside_it(world):
    setup = Setup(world, render=lambda output, view: f"{output.times} times")

    reply = await setup.call(view={"width": 40, "color": False, "text_only": True})

    assert (reply.result, reply.text) == ({}, "1 times")


@pytest.mark.parametrize("text_only", [False, True])
async def test_a_result_that_cannot_be_rendered_is_still_a_result(world, caplog, text_only):
    def broken(output, view):
        raise ZeroDivisionError

    view = {"width": 40, "color": False, "text_only": text_only}
    reply = await Setup(world, render=broken).call(view=view)

    assert (reply.result, reply.text) == ({"times": 1}, None)
    assert "cannot be rendered" in caplog.text


@pytest.mark.parametrize("failure", [OSError("disk"), UnicodeError("odd")])
async def test_an_audit_log_that_cannot_be_written_does_not_change_the_outcome(
    world, caplog, failure
):
    class Broken:
        async def append(self, action):
            raise failure

    setup = Setup(world)
    world.storage.actions = Broken()

    assert (await setup.call()).result == {"times": 1}
    assert "missing from the audit log" in caplog.text


async def test_what_is_recorded_can_be_stored(world):
    setup = Setup(world)

    await setup.call({"thread": "@x", "text": "a\ud800b"})

    assert (await setup.audit())[0][3] == "a?b"


async def test_a_call_that_was_cancelled_is_recorded(world):
    async def hang(context, request):
        scope.cancel()
        await anyio.sleep_forever()

    setup = Setup(world, hang)
    with anyio.CancelScope() as scope:
        await setup.call()

    assert (await setup.audit())[0][1] == "cancelled"


async def test_a_closed_dispatcher_runs_reads_alone(world):
    write, read = Setup(world), Setup(world, intent=Intent.READ)
    write.dispatcher.closed = read.dispatcher.closed = True

    with pytest.raises(DaemonUnreachable, match="nothing was done"):
        await write.call()

    assert (await read.call()).result == {"times": 1}


async def test_a_surface_does_not_see_what_is_hidden_from_it(world):
    dispatcher = Setup(world, hidden_from=frozenset({"mcp"})).dispatcher

    assert [info.name for info in dispatcher.ops("cli")] == ["acme.poke"]
    assert dispatcher.ops("mcp") == []
