"""From the options and the configuration to a thread that could be made. Reads files, so it runs in a worker thread."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dispatch_core.api import Image, Message, ThreadSettings, ValidationFailed
from dispatch_core.config import (
    ACCESS,
    KEYS,
    Candidate,
    Configuration,
    Fate,
    Resolved,
    Source,
    decode,
    read_file,
)
from dispatch_plugins.ops.new.contract import Plan, PlannedSetting, PlannedText
from dispatch_plugins.ops.new.naming import full_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatch_core.config import Places
    from dispatch_plugins.ops.new.contract import NewInput

# The keys that become a text, with the one that names a file for it.
SLOTS = {
    "base_instructions": "base_file",
    "developer_instructions": "developer_file",
    "output_schema": "output_schema_file",
}
BUILT_IN = {"ephemeral": False}
PLAIN = (
    "sandbox",
    "approval_policy",
    "approvals_reviewer",
    "permissions",
    "model",
    "model_provider",
    "effort",
    "summary",
    "personality",
    "service_tier",
)
OPTION = Source(kind="option")
GOAL_LIMIT = 4000  # characters Codex takes as a goal


@dataclass(frozen=True, slots=True)
class Text:
    """A text with its origin. source: where it, or the file at path, was named."""

    text: str
    source: str
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A thread that could be made. used: the value that counts for each key. notes: what was passed over."""

    name: str
    cwd: str
    cwd_source: str
    used: Mapping[str, Candidate]
    texts: Mapping[str, Text]
    output_schema: Mapping[str, Any] | None
    message: Message | None
    files: Mapping[str, str] = field(default_factory=dict)
    goal_unbounded: bool = False
    notes: tuple[str, ...] = ()
    resolved: Mapping[str, str] = field(default_factory=dict)

    def value(self, key: str) -> Any:
        """Return the value that counts for a key, None when it is left to Codex."""
        if key in self.resolved:
            return self.resolved[key]
        return self.used[key].value if key in self.used else None

    @property
    def ephemeral(self) -> bool:
        return bool(self.value("ephemeral"))

    @property
    def goal_budget(self) -> int | None:
        """The budget of the goal; a configured one means nothing without a goal."""
        return self.value("goal_budget") if "goal" in self.used else None

    @property
    def settings(self) -> ThreadSettings:
        """What the thread is made with."""
        return ThreadSettings(
            **{key: self.value(key) for key in PLAIN},
            output_schema=self.output_schema,
            base_instructions=self._text("base_instructions"),
            developer_instructions=self._text("developer_instructions"),
        )

    def plan(self) -> Plan:
        """Return the plan that a dry run shows."""
        return Plan(
            name=self.name,
            handle=f"@{self.name}",
            cwd=self.cwd,
            settings=list(self._settings()),
            texts=[_planned(name, text) for name, text in self.texts.items()],
            files=dict(self.files),
            images=[image.path for image in self.message.images] if self.message else [],
            would_send=self.message is not None,
            goal=self.value("goal"),
            goal_budget=self.goal_budget,
        )

    def _text(self, name: str) -> str | None:
        return self.texts[name].text if name in self.texts else None

    def _settings(self) -> list[PlannedSetting]:
        rows = [PlannedSetting(name="cwd", value=self.cwd, source=self.cwd_source)]
        for key in (
            *PLAIN,
            "ephemeral",
            "prefix",
            "output_schema",
            "output_schema_file",
            "goal_budget",
        ):
            found = self.used.get(key)
            if found is None and key in ("prefix", "output_schema_file", "goal_budget"):
                continue
            source = "codex" if found is None else str(found.source)
            rows.append(PlannedSetting(name=key, value=self.value(key), source=source))
        return rows


def draft(request: NewInput, places: Places) -> Draft:
    """Return the thread that a request asks for. Blocking.

    Raises ValidationFailed, naming file or option, for everything that can be refused without asking Codex.
    """
    start = _start(request)
    configuration = Configuration.read(places, Path(request.cwd) if request.cwd else start)
    found = configuration.resolve(
        presets=request.preset,
        builtin=BUILT_IN if start is None else {**BUILT_IN, "cwd": str(start)},
        options=_options(request),
    )
    used = found.used()
    cwd, cwd_source = _cwd(used)
    texts = {name: text for name in SLOTS if (text := _slot(used, name))}
    schema = texts.pop("output_schema", None)
    text = _first_text(request, used)
    if goal := used.get("goal"):
        texts["goal"] = Text(goal.value, str(goal.source))
    _check_goal(request, used)
    return Draft(
        name=full_name(
            request.name, used["prefix"].value if "prefix" in used else None, cwd, request.preset
        ),
        cwd=str(cwd),
        cwd_source=cwd_source,
        used=used,
        texts=texts if text is None else {**texts, "text": text},
        output_schema=_schema(used, schema),
        message=_message(request, text),
        files={file.kind: str(file.path) for file in configuration.files if file.content},
        goal_unbounded=request.goal_unbounded,
        notes=(*found.notes, *_unused(found)),
    )


def _start(request: NewInput) -> Path | None:
    for name, value in (("cwd", request.cwd), ("caller_cwd", request.caller_cwd)):
        if value is not None and not Path(value).is_absolute():
            raise ValidationFailed(
                f"new: {name}: {value} is not an absolute path",
                hint="give the whole path",
                details={"field": name},
            )
    return Path(request.caller_cwd) if request.caller_cwd else None


def _options(request: NewInput) -> dict[str, Any]:
    given = request.model_dump(mode="json", exclude_none=True)
    options = {name: given[name] for name in KEYS if name in given and name != "text"}
    access = [name for name in ACCESS if name in options]
    if "permissions" in options and access:
        raise ValidationFailed(
            f"new: permissions cannot be combined with {access[0]}: a permission profile replaces it",
            hint="give one of the two",
            details={"field": "permissions"},
        )
    return options


def _unused(found: Resolved) -> list[str]:
    """Return a remark for each option that is given and not used."""
    return [
        f"{one.key} is not used: {one.reason}"
        for one in found.candidates
        if one.source == OPTION and one.fate is Fate.OVERRIDDEN
    ]


def _cwd(used: Mapping[str, Candidate]) -> tuple[Path, str]:
    found = used.get("cwd")
    if found is None:
        raise ValidationFailed(
            "new: cwd: no working directory was given, and none is configured",
            hint="name one with --cwd",
            details={"field": "cwd"},
        )
    directory = Path(found.value)
    if not directory.is_dir():
        where = "" if found.source == OPTION else f" ({found.source})"
        raise ValidationFailed(
            f"new: cwd: {directory} is not a directory{where}",
            hint="make the directory, or name another with --cwd",
            details={"field": "cwd", "path": str(directory)},
        )
    return directory, str(found.source)


def _slot(used: Mapping[str, Candidate], name: str) -> Text | None:
    if name in used and isinstance(used[name].value, str):
        return Text(used[name].value, str(used[name].source))
    file = used.get(SLOTS[name])
    if file is None:
        return None
    path = Path(file.value)
    what = f"new: {SLOTS[name]}"
    if file.content is None and file.source.kind == "project":
        # Not read here: what was not there when trust was looked at, nobody has trusted.
        raise ValidationFailed(
            f"{what}: cannot read {path}",
            hint="make it a text file that can be read, then dispatch config trust",
            details={"field": what, "path": str(path)},
        )
    data = file.content if file.content is not None else read_file(path, what)
    return Text(decode(data, path, what), str(file.source), str(path))


def _schema(used: Mapping[str, Candidate], text: Text | None) -> Mapping[str, Any] | None:
    if text is None:
        schema = used["output_schema"].value if "output_schema" in used else None
        where, problem = "output_schema:", None
    else:
        where, problem = f"output_schema_file: {text.path}", "is not a JSON object"
        try:
            schema = json.loads(text.text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            schema, problem = None, f"is not JSON: {error}"
    if schema is None and problem is None:
        return None
    if isinstance(schema, dict):
        try:
            json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            problem = f"cannot be sent as JSON: {error}"
        else:
            return schema
    raise ValidationFailed(
        f"new: {where} {problem}",
        hint="give a JSON schema",
        details={"field": where.partition(":")[0], "path": text.path if text else None},
    )


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _first_text(request: NewInput, used: Mapping[str, Candidate]) -> Text | None:
    if request.input_file is not None:
        if request.text is not None:
            raise ValidationFailed(
                "new: text and input_file are both given",
                hint="give one of the two",
                details={"field": "input_file"},
            )
        path, what = Path(request.input_file), "new: input_file"
        return Text(decode(read_file(path, what), path, what), "option", str(path))
    if request.text is not None:
        return Text(request.text, "option")
    configured = used.get("text")
    return None if configured is None else Text(configured.value, str(configured.source))


def _message(request: NewInput, text: Text | None) -> Message | None:
    if request.image and (text is None or not request.send):
        raise ValidationFailed(
            "new: image: a picture goes with a first message, and none is sent",
            hint="give the message as well: dispatch new NAME TEXT --image FILE",
            details={"field": "image"},
        )
    if text is None or not request.send:
        return None
    if text.text.lstrip().startswith("/goal"):
        raise ValidationFailed(
            "new: text: /goal is a command of the Codex terminal; as a message it does not set a goal",
            hint=f"dispatch new {request.name!r} --goal OBJECTIVE",
            details={"field": "text"},
        )
    return Message(text=text.text, images=tuple(Image(path=path) for path in request.image))


def _check_goal(request: NewInput, used: Mapping[str, Candidate]) -> None:
    budget = used.get("goal_budget")
    problem, step = None, "give the goal with --goal"
    if "goal" not in used:
        if budget is not None and budget.source == OPTION:
            problem = "goal_budget: there is no goal to limit"
        elif request.goal_unbounded:
            problem = "goal_unbounded: there is no goal"
    elif used["ephemeral"].value:
        problem = "goal: an ephemeral thread cannot have a goal, for Codex keeps nothing of it"
        step = "leave out one of the two; --no-ephemeral overrides the configuration"
    elif len(used["goal"].value) > GOAL_LIMIT or not used["goal"].value.strip():
        problem = (
            f"goal: it has {len(used['goal'].value):,} characters; 1 to {GOAL_LIMIT:,} are allowed"
        )
        step = "say the goal in short, and the rest in the first message"
    elif budget is None and not request.goal_unbounded:
        problem = "goal: an active goal starts turns until it is reached, and no budget limits it"
        step = "add --goal-budget TOKENS, or --goal-unbounded if that is meant"
    if problem is not None:
        field_name = problem.partition(":")[0]
        raise ValidationFailed(f"new: {problem}", hint=step, details={"field": field_name})


def _planned(name: str, text: Text) -> PlannedText:
    data = text.text.encode("utf-8", "surrogatepass")
    return PlannedText(
        name=name,
        bytes=len(data),
        sha256=sha256(data).hexdigest(),
        path=text.path,
        source=text.source,
    )
