"""Surfaces: ways to reach every op. A surface names its functions by import path and knows no op by name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatch_core.contracts.caller import Caller

IMPORT_PATH = re.compile(r"[\w.]+:\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """A way to reach every op, in up to two halves, each "module:function".

    process: ``main(argv: list[str], manifest: Manifest) -> int``, run as ``dispatch NAME …`` in a process of its own; argv is
    all the words, with NAME among them. It talks to the daemon over the control socket. session:
    ``async serve(stream, session)`` in the daemon: what the far end of a connection is handed to when a process asks for it;
    stream is a byte stream, session a SurfaceSession.
    """

    name: str
    summary: str
    process: str | None = None
    session: str | None = None

    def __post_init__(self) -> None:
        if self.process is None and self.session is None:
            raise ValueError(f"surface {self.name}: at least one of process and session")
        for path in (self.process, self.session):
            if path is not None and not IMPORT_PATH.fullmatch(path):
                raise ValueError(
                    f"surface {self.name}: {path!r} is not of the form module:function"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpReply:
    """What an op answered: its output as a JSON object and, when a view was asked for, the text for people."""

    result: dict[str, Any]
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpInfo:
    """One op as the surfaces see it, without its code; the entry of the manifest.

    schema: JSON schema of the input. output_schema: of the output. schema_hash: of both; a daemon refuses a call whose hash
    is not its own. intent: "read", "write" or "destroy". stream: {"rows", "always"} of an op that can be followed. progress: it
    publishes ``op.progress`` events.
    """

    name: str
    summary: str
    noun: str
    intent: str
    idempotent: bool
    timeout: float | None
    schema: Mapping[str, Any]
    output_schema: Mapping[str, Any]
    schema_hash: str
    examples: Sequence[Mapping[str, Any]]
    plugin: str
    dist: str
    hidden_from: Sequence[str] = ()
    stream: Mapping[str, Any] | None = None
    progress: bool = False


class OpCaller(Protocol):
    """The one way in: validation, authority, deadline, audit and the handler are behind it."""

    def ops(self, surface: str) -> Sequence[OpInfo]:
        """Return the ops this surface shows, in order of name."""
        ...

    async def call(
        self,
        name: str,
        args: Mapping[str, Any],
        caller: Caller,
        *,
        view: Mapping[str, Any] | None = None,
    ) -> OpReply:
        """Run an op. view: {"width", "color"} to have text for people as well. Raises DispatchError and nothing else."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceSession:
    """What the daemon half of a surface gets: the ops, who is calling, and the options of the process half."""

    ops: OpCaller
    caller: Caller
    options: Mapping[str, Any]
    version: str
