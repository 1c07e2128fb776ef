"""The keys of ``[defaults]`` and ``[presets.NAME]``: one table with the type, the meaning and the class of each.

The class says what a project's own configuration may do with a key. A repository is somebody else's text: whoever starts a thread
in it must not get another sandbox, other prompts or other files sent to the model by that alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from dispatch_core.errors import ValidationFailed

TEXT_LIMIT = 1 << 20  # characters of one text in a configuration

DEFAULTS = "defaults"
PRESETS = "presets"
INSTRUCTIONS = "instructions"  # a table within those, flattened
CLASS = "project"  # metadata of a field of the other sections


class ProjectClass(StrEnum):
    """What a key in a project's configuration is worth."""

    SAFE = "project-safe"
    TRUST = "needs-trust"
    NEVER = "never-from-project"


SAFE, TRUST, NEVER = ProjectClass.SAFE, ProjectClass.TRUST, ProjectClass.NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key.

    project: its class. safe_values: values that are project-safe although the class is another one, because nothing is narrower.
    outside: the class of a path that leads out of the project. path: relative values are made absolute. replaces: keys of earlier
    layers that no longer count once this one is set. beats: the key that is passed over when both are in one layer.
    """

    name: str
    type: Literal["string", "boolean", "integer", "table"]
    about: str
    project: ProjectClass
    safe_values: tuple[str, ...] = ()
    outside: ProjectClass | None = None
    path: Literal["", "directory", "file"] = ""
    choices: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    beats: str | None = None
    instructions: bool = False

    def classify(self, value: Any, root: Path) -> ProjectClass:
        """Return the class of a value in the configuration of the project at root; paths are absolute already."""
        if value in self.safe_values:
            return SAFE
        if self.outside is not None and not _really(value).is_relative_to(_really(root)):
            return self.outside
        return self.project

    def check(self, value: Any) -> None:
        """Raise ValueError with a reason that fits after the key's name unless the value is of the right type."""
        expected = {"string": str, "boolean": bool, "integer": int, "table": Mapping}[self.type]
        if not isinstance(value, expected) or (self.type == "integer" and isinstance(value, bool)):
            raise ValueError(f"must be a {self.type}")
        if self.type == "table" and not _is_json(value):
            raise ValueError("must be JSON: no dates, no infinite numbers")
        if self.choices and value not in self.choices:
            raise ValueError(f"{value!r} is not one of {', '.join(self.choices)}")
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ValueError("must be 1 or more")
        if isinstance(value, str):
            if not value.strip() and self.name != "prefix":
                raise ValueError("must not be empty")
            if len(value) > TEXT_LIMIT:
                raise ValueError(f"has {len(value):,} characters; {TEXT_LIMIT:,} are allowed")
            if self.path and "\0" in value:
                raise ValueError("must not contain a NUL")


ACCESS = ("sandbox", "approval_policy", "approvals_reviewer")

KEYS: Mapping[str, Key] = {
    key.name: key
    for key in (
        Key(
            name="cwd",
            type="string",
            path="directory",
            about="Working directory of the thread.",
            project=SAFE,
            outside=TRUST,
        ),
        Key(
            name="sandbox",
            type="string",
            choices=("read-only", "workspace-write", "danger-full-access"),
            about="What commands may touch.",
            project=NEVER,
            safe_values=("read-only",),
            replaces=("permissions",),
        ),
        Key(
            name="approval_policy",
            type="string",
            choices=("untrusted", "on-request", "never"),
            about="When Codex asks before it runs a command.",
            project=NEVER,
            safe_values=("untrusted",),
            replaces=("permissions",),
        ),
        Key(
            name="approvals_reviewer",
            type="string",
            choices=("user", "auto_review", "guardian_subagent"),
            about="Who answers what Codex asks.",
            project=NEVER,
            safe_values=("user",),
            replaces=("permissions",),
        ),
        Key(
            name="permissions",
            type="string",
            about="A permission profile of Codex, in place of sandbox and approvals.",
            project=NEVER,
            replaces=ACCESS,
        ),
        Key(name="model", type="string", about="The model, by its id.", project=SAFE),
        Key(
            name="model_provider",
            type="string",
            about="The provider that serves the model, as Codex's configuration names it.",
            project=TRUST,
        ),
        Key(name="effort", type="string", about="How much the model reasons.", project=SAFE),
        Key(
            name="summary",
            type="string",
            choices=("auto", "concise", "detailed", "none"),
            about="How the model's reasoning is summed up.",
            project=SAFE,
        ),
        Key(
            name="personality",
            type="string",
            choices=("none", "friendly", "pragmatic"),
            about="How the model speaks; newer models have no choice here.",
            project=SAFE,
        ),
        Key(
            name="service_tier",
            type="string",
            about="Service tier, by id or name; fast is the one named so. It may cost more.",
            project=TRUST,
        ),
        Key(
            name="ephemeral",
            type="boolean",
            about="Whether Codex keeps no history of the thread.",
            project=TRUST,
        ),
        Key(
            name="prefix",
            type="string",
            about="What stands before the name, with a space between. "
            "${DISPATCH.CWD.REPO}, ${DISPATCH.CWD.BASENAME} and ${DISPATCH.PRESET} are filled in.",
            project=SAFE,
        ),
        Key(name="text", type="string", about="The first message.", project=TRUST),
        Key(
            name="goal",
            type="string",
            about="What the thread works towards by itself.",
            project=TRUST,
        ),
        Key(
            name="goal_budget",
            type="integer",
            about="Tokens after which the goal stops.",
            project=TRUST,
        ),
        Key(
            name="base_instructions",
            type="string",
            about="What replaces the model's own instructions.",
            project=TRUST,
            replaces=("base_file",),
            beats="base_file",
            instructions=True,
        ),
        Key(
            name="base_file",
            type="string",
            path="file",
            about="A UTF-8 file with the base instructions.",
            project=TRUST,
            outside=NEVER,
            replaces=("base_instructions",),
            instructions=True,
        ),
        Key(
            name="developer_instructions",
            type="string",
            about="What is said to the model in addition to its instructions.",
            project=TRUST,
            replaces=("developer_file",),
            beats="developer_file",
            instructions=True,
        ),
        Key(
            name="developer_file",
            type="string",
            path="file",
            about="A UTF-8 file with the developer instructions.",
            project=TRUST,
            outside=NEVER,
            replaces=("developer_instructions",),
            instructions=True,
        ),
        Key(
            name="output_schema",
            type="table",
            about="JSON schema of every final answer.",
            project=TRUST,
            replaces=("output_schema_file",),
            beats="output_schema_file",
        ),
        Key(
            name="output_schema_file",
            type="string",
            path="file",
            about="A JSON file with that schema.",
            project=TRUST,
            outside=NEVER,
            replaces=("output_schema",),
        ),
    )
}


def _really(path: str | Path) -> Path:
    """Return a path with its links followed; one in a circle of links leads nowhere and is no error."""
    return Path(os.path.realpath(path))


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def check_value(where: str, name: str, value: Any, *, hint: str) -> None:
    """Raise ValidationFailed naming the place and the key unless there is such a key and the value suits it.

    where: what comes before the key in the message, such as "FILE: defaults.".
    """
    key = KEYS.get(name)
    try:
        if key is None:
            raise ValueError(f"is no key; there are {', '.join(KEYS)}")
        key.check(value)
    except ValueError as error:
        full = f"{where}{name}"
        raise ValidationFailed(
            f"{full}: {error}" if key else f"{full} {error}",
            hint=hint,
            details={"key": full.rpartition(": ")[2]},
        ) from None
