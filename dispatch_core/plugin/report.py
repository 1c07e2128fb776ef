"""What is known about each plugin: the owner, the stage and the reason of every failure."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["loaded", "quarantined", "disabled"]
Stage = Literal["scan", "vet", "load", "declare", "freeze"]


@dataclass(slots=True, kw_only=True)
class PluginReport:
    """One plugin as ``dispatch plugins`` shows it.

    provides: names of ops, kinds and surfaces, and whether it is a storage backend. traceback: of the failure, if there was one.
    """

    name: str
    group: str
    value: str
    dist: str
    version: str
    first_party: bool
    state: State = "loaded"
    stage: Stage | None = None
    reason: str | None = None
    traceback: str | None = None
    provides: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The plugin's identity: an entry-point name of a distribution in a group."""
        return f"{self.group}:{self.name}:{self.dist}"

    @property
    def kind(self) -> str:
        """The last part of the group: plugins, storage or surfaces."""
        return self.group.rpartition(".")[2]

    def quarantine(self, stage: Stage, reason: str, error: BaseException | None = None) -> None:
        """Put the plugin out of use and remember why."""
        self.state = "quarantined"
        self.stage = stage
        self.reason = reason
        self.provides = {}
        if error is not None:
            self.traceback = "".join(traceback.format_exception(error))

    def disable(self, reason: str) -> None:
        """Leave the plugin out because somebody asked for it."""
        self.state = "disabled"
        self.reason = reason

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form, as the manifest keeps it."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PluginReport:
        """Return a report from its JSON form."""
        return cls(**data)
