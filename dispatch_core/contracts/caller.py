"""Who asks: every request carries it, every audit line shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The principal behind a call.

    principal: "human", "agent:<thread id>", "trigger:<id>" or "surface:<name>". surface: the name of the surface it came
    through. thread_id: the Codex thread the caller runs in, when it runs in one.
    """

    principal: str
    surface: str
    thread_id: str | None = None
    trigger_id: str | None = None


HUMAN = Caller(principal="human", surface="control")
