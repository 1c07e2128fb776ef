"""A step as events of the Responses API. Nothing here waits: pauses are data for whoever sends."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from dispatch_core.offline.script import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.offline.script import Call, CustomCall, Step

CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds before going on."""

    seconds: float


class Ending(Enum):
    """How a reply stops short of its proper end."""

    CUT = auto()
    HANG = auto()


Part = bytes | Pause | Ending


class Reply:
    """The parts of one reply in order: encoded events, pauses, perhaps an ending as the last."""

    def __init__(self, step: Step, *, text: str | None, model: str, request_size: int) -> None:
        self._step = step
        self._text = text
        self._model = model
        self._request_size = request_size
        self._id = _new_id("resp")
        self._output: list[dict[str, Any]] = []

    def parts(self) -> Iterator[Part]:
        """Yield the parts. Call it once."""
        step = self._step
        yield _event("response.created", response=self._response("in_progress"))
        if step.first_delay:
            yield Pause(step.first_delay)
        if step.reasoning is not None:
            yield from self._reasoning(step.reasoning)
        if self._text is not None:
            yield from self._message(self._text)
        if step.hang or step.cut:
            yield Ending.HANG if step.hang else Ending.CUT
            return
        for call in step.call:
            yield from self._item(_call(call), arguments="")
        for custom in step.custom:
            yield from self._item(_custom_call(custom), input="")
        yield self._last_event()

    def _reasoning(self, text: str) -> Iterator[Part]:
        item: dict[str, Any] = {"type": "reasoning", "id": _new_id("rs"), "summary": []}
        at = {"item_id": item["id"], "output_index": len(self._output), "summary_index": 0}
        part = {"type": "summary_text", "text": text}
        yield self._added(item)
        yield _event("response.reasoning_summary_part.added", **at, part={**part, "text": ""})
        yield _event("response.reasoning_summary_text.delta", **at, delta=text)
        yield self._done({**item, "summary": [part]})

    def _message(self, text: str) -> Iterator[Part]:
        step = self._step
        item: dict[str, Any] = {"type": "message", "role": "assistant", "id": _new_id("msg")}
        yield self._added({**item, "status": "in_progress", "content": []})
        at = {"item_id": item["id"], "output_index": len(self._output), "content_index": 0}
        size = max(1, -(-len(text) // step.chunks))
        for start in range(0, len(text), size):
            yield _event("response.output_text.delta", **at, delta=text[start : start + size])
            if step.chunk_delay:
                yield Pause(step.chunk_delay)
        if not (step.hang or step.cut):
            content = {"type": "output_text", "text": text, "annotations": []}
            yield self._done({**item, "status": "completed", "content": [content]})

    def _item(self, item: dict[str, Any], **unfinished: str) -> Iterator[Part]:
        yield self._added({**item, **unfinished})
        yield self._done(item)

    def _added(self, item: dict[str, Any]) -> bytes:
        return _event("response.output_item.added", output_index=len(self._output), item=item)

    def _done(self, item: dict[str, Any]) -> bytes:
        self._output.append(item)
        return _event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _last_event(self) -> bytes:
        step = self._step
        if step.failed is not None:
            failed = self._response("failed", error=step.failed.model_dump())
            return _event("response.failed", response=failed)
        if step.incomplete is not None:
            details = {"reason": step.incomplete}
            incomplete = self._response("incomplete", incomplete_details=details)
            return _event("response.incomplete", response=incomplete)
        return _event(
            "response.completed", response=self._response("completed", usage=self._usage())
        )

    def _response(self, status: str, **more: object) -> dict[str, Any]:
        base = {"id": self._id, "object": "response", "status": status, "model": self._model}
        return {**base, "output": self._output, **more}

    def _usage(self) -> dict[str, Any]:
        usage = self._step.usage or Usage(
            input_tokens=self._request_size // CHARACTERS_PER_TOKEN,
            output_tokens=len(self._text or "") // CHARACTERS_PER_TOKEN + 1,
        )
        return {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.input_tokens + usage.output_tokens,
        }


def _call(call: Call) -> dict[str, Any]:
    arguments = call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)
    base = {"type": "function_call", "id": _new_id("fc"), "call_id": _new_id("call")}
    namespace = {"namespace": call.namespace} if call.namespace else {}
    return {**base, "name": call.name, **namespace, "arguments": arguments}


def _custom_call(call: CustomCall) -> dict[str, Any]:
    base = {"type": "custom_tool_call", "id": _new_id("ctc"), "call_id": _new_id("call")}
    return {**base, "status": "completed", "name": call.name, "input": call.input}


def _event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"
