"""What a call of a tool becomes."""

from __future__ import annotations

import pytest

from dispatch_core.api import ValidationFailed
from dispatch_plugins.mcp.grouping import tools
from dispatch_plugins.mcp.routing import route

MANY = {"type": "array", "items": {"type": "string"}, "description": "Threads."}
ONE = {"type": "string", "description": "A thread."}


def test_a_worker_is_the_one_thread_of_an_op_that_takes_several(make_op):
    ops = [
        make_op("get", "thread", "read", {"thread": ONE}),
        make_op("wait", "thread", "read", {"thread": MANY}),
    ]
    [spec] = tools(ops, "worker", thread_id="t1")

    calls = [route({spec.name: spec}, spec, {"op": name}) for name in ("get", "wait")]

    assert [call.args for call in calls] == [{"thread": "t1"}, {"thread": ["t1"]}]


@pytest.mark.parametrize("value", ["b.png", ["/a.png", "b.png"]])
def test_a_relative_file_is_refused_alone_and_among_others(make_op, value):
    files = {**(MANY if isinstance(value, list) else ONE), "x-cli": {"file": True}}
    [spec] = tools([make_op("paint", "thread", "write", {"image": files})])

    with pytest.raises(ValidationFailed, match=r"b\.png"):
        route({spec.name: spec}, spec, {"op": "paint", "image": value})
