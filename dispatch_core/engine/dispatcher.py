"""The one way in: catalog, validation, deadline, handler, audit. Every surface and every trigger calls ops through here."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
from pydantic import ValidationError

from dispatch_core.contracts.op import Intent
from dispatch_core.contracts.records import ActionRecord
from dispatch_core.contracts.surface import OpInfo, OpReply
from dispatch_core.contracts.view import View
from dispatch_core.errors import (
    DaemonUnreachable,
    DispatchError,
    OutcomeUnknown,
    PluginFault,
    TimedOut,
    UnknownOp,
    ValidationFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from pydantic import BaseModel

    from dispatch_core.contracts.caller import Caller
    from dispatch_core.contracts.context import OpContext
    from dispatch_core.contracts.op import Op
    from dispatch_core.plugin.catalog import Catalog

log = logging.getLogger(__name__)

AUDIT_PATIENCE = 2.0  # seconds for the audit line of a call that was cancelled
DETAIL_LIMIT = 120  # characters of the audit log's detail


class Dispatcher:
    """Runs ops. ``context`` makes what a handler may touch, for one caller. closed: only reads are run any more.

    entries: the ops of the manifest; OpInfo is made for who asks, because it takes decoding their schemas.
    """

    def __init__(
        self,
        catalog: Catalog,
        entries: Iterable[Mapping[str, Any]],
        context: Callable[[Caller], OpContext],
    ) -> None:
        self._catalog = catalog
        self._entries = {entry["name"]: entry for entry in entries if entry["name"] in catalog.ops}
        self._context = context
        self.closed = False
        self._writing = 0
        self._written = anyio.Event()

    def ops(self, surface: str) -> Sequence[OpInfo]:
        """Return the ops this surface shows, in order of name."""
        entries = self._entries.values()
        return [OpInfo(**entry) for entry in entries if surface not in entry["hidden_from"]]

    def entry(self, name: str) -> Mapping[str, Any]:
        """Return one op of the manifest. Raises UnknownOp."""
        entry = self._entries.get(name)
        if entry is None:
            from difflib import get_close_matches  # noqa: PLC0415 -- for memory: only mistakes need it

            raise UnknownOp(name, similar=get_close_matches(name, self._entries, n=2, cutoff=0.6))
        return entry

    def fields(self, name: str) -> Collection[str]:
        """Return the names of an op's input fields; none for an op that there is not."""
        op = self._catalog.ops.get(name)
        return op.input.model_fields.keys() if op is not None else ()

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        view: Mapping[str, Any] | None = None,
    ) -> OpReply:
        """Run an op and return its reply. Raises DispatchError and, when cancelled, nothing but the cancellation.

        view: {"width", "color"} and perhaps "text_only": the result is empty then, if there is a text.
        """
        self.entry(name)
        op = self._catalog.ops[name]
        context = self._context(caller)
        try:
            if self.closed and op.intent is not Intent.READ:
                raise DaemonUnreachable(
                    "the daemon is stopping; nothing was done", hint="dispatch up"
                )
            request = _validate(op, args)
            with self._counted(op):
                output, reply = await self._run(op, request, context, view)
        except DispatchError as error:
            await self._audit(op, args, None, context, error.code)
            raise
        except anyio.get_cancelled_exc_class():
            with anyio.move_on_after(AUDIT_PATIENCE, shield=True):
                await self._audit(op, args, None, context, "cancelled")
            raise
        await self._audit(op, args, output, context, "ok")
        return reply

    async def quiet(self) -> None:
        """Wait until no op runs that changes something."""
        while self._writing:
            await self._written.wait()

    @contextmanager
    def _counted(self, op: Op[Any, Any]) -> Iterator[None]:
        if op.intent is Intent.READ:
            yield
            return
        self._writing += 1
        try:
            yield
        finally:
            self._writing -= 1
            self._written.set()
            self._written = anyio.Event()

    async def _run(
        self,
        op: Op[Any, Any],
        request: BaseModel,
        context: OpContext,
        view: Mapping[str, Any] | None,
    ) -> tuple[BaseModel, OpReply]:
        owner = self._catalog.owners[op.name]
        try:
            with anyio.move_on_after(op.timeout) as deadline:
                output = await op.handler(context, request)
                if isinstance(output, op.output):
                    return output, _reply(op, output, view)
        except DispatchError:
            raise
        except (
            Exception,
            SystemExit,
        ) as error:  # a plugin that calls sys.exit() must not end the daemon
            log.exception("op %s of plugin %s (%s) failed", op.name, owner.name, owner.dist)
            raise _crashed(
                op, owner.name, owner.dist, error, first_party=owner.first_party
            ) from error
        if deadline.cancelled_caught:
            raise _deadline(op)
        raise PluginFault(
            f"plugin {owner.name} ({owner.dist}): op {op.name} returned {type(output).__name__}, "
            f"not {op.output.__name__}",
            hint="report this to the plugin's author",
        )

    async def _audit(
        self,
        op: Op[Any, Any],
        args: Mapping[str, Any],
        output: BaseModel | None,
        context: OpContext,
        outcome: str,
    ) -> None:
        if op.intent is Intent.READ:
            return
        thread = getattr(getattr(output, "thread", None), "ref", None) or args.get("thread")
        detail = args.get("text") or args.get("name") or args.get("trigger")
        action = ActionRecord(
            at=context.clock.now(),
            op=op.name,
            principal=context.caller.principal,
            outcome=outcome,
            thread=_short(thread),
            trigger_id=context.caller.trigger_id,
            detail=_short(detail),
        )
        try:
            await context.store.actions.append(action)
        except Exception:
            # The op has happened or has failed; a registry that cannot be written must not turn that into something else.
            log.exception("op %s is missing from the audit log", op.name)


def _reply(op: Op[Any, Any], output: BaseModel, view: Mapping[str, Any] | None) -> OpReply:
    text = _render(op, output, view) if view is not None else None
    if text is not None and view is not None and view.get("text_only"):
        return OpReply(result={}, text=text)
    return OpReply(result=output.model_dump(mode="json"), text=text)


def _render(op: Op[Any, Any], output: BaseModel, view: Mapping[str, Any]) -> str | None:
    if op.render is None:
        return None
    try:
        shown = View(view.get("width", 80), bool(view.get("color")), datetime.now(UTC))
        return op.render(output, shown)
    except Exception:
        log.exception("op %s cannot be rendered", op.name)
        return None


def _validate(op: Op[Any, Any], args: Mapping[str, Any]) -> BaseModel:
    try:
        request: BaseModel = op.input.model_validate(args)
    except ValidationError as error:
        problems = [
            {"field": ".".join(map(str, e["loc"])) or "input", "message": e["msg"]}
            for e in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        text = "; ".join(f"{problem['field']}: {problem['message']}" for problem in problems[:3])
        command = op.name.replace(".", " ")
        raise ValidationFailed(
            f"{command}: {text}", hint=f"dispatch {command} --help", details={"fields": problems}
        ) from error
    return request


def _deadline(op: Op[Any, Any]) -> DispatchError:
    text = f"{op.name} did not finish within {op.timeout:g} s"
    if op.intent is Intent.READ:
        return TimedOut(text, hint="dispatch daemon status shows how Codex is doing")
    return OutcomeUnknown(
        f"{text}; it may have happened", hint="look before you repeat it: dispatch daemon log"
    )


def _crashed(
    op: Op[Any, Any], name: str, dist: str, error: BaseException, *, first_party: bool
) -> DispatchError:
    text = f"{type(error).__name__}: {error}".rstrip(": ")
    hint = "dispatch daemon log --daemon has the traceback"
    if first_party:
        return DispatchError(f"{op.name} failed inside dispatch: {text}", hint=hint)
    return PluginFault(f"plugin {name} ({dist}): op {op.name} failed: {text}", hint=hint)


def _short(value: object) -> str | None:
    """Return the beginning of a value as text that every backend can store."""
    if value is None:
        return None
    return str(value)[:DETAIL_LIMIT].encode("utf-8", "replace").decode("utf-8")
