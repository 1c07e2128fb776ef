"""The fields of an op's input as the command line sees them, read from its JSON schema."""

from __future__ import annotations

from dispatch_core import lean_json

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

METAVARS = {
    "text": "TEXT",
    "int": "INTEGER",
    "float": "NUMBER",
    "pairs": "KEY=VALUE",
    "json": "JSON",
    "any": "VALUE",
    "choice": "WORD",
}
MOST_CHOICES = 60  # characters
SCALARS = {"string": "text", "integer": "int", "number": "float", "boolean": "bool"}


class Field:
    """One field of an input.

    kind: text, int, float, bool, choice, pairs (KEY=VALUE, any number of times), json, or any (JSON if it parses, else text).
    many: the field is a list of that kind. default: only meaningful when required is false; it is shown, never sent.
    """

    __slots__ = (
        "aliases",
        "argument",
        "choices",
        "complete",
        "default",
        "default_cwd",
        "description",
        "file",
        "hidden",
        "kind",
        "many",
        "name",
        "option",
        "path",
        "required",
        "stdin",
    )

    def __init__(self, name: str, schema: Mapping[str, Any], *, required: bool) -> None:
        marks = schema.get("x-cli", {})
        self.name = name
        self.option = "--" + name.replace("_", "-")
        self.description: str = schema.get("description", "")
        self.default: Any = schema.get("default")
        self.argument = bool(marks.get("argument"))
        self.path = bool(marks.get("path"))
        self.file = bool(marks.get("file"))
        self.complete: str = marks.get("complete", "")
        self.default_cwd = bool(marks.get("default_cwd"))
        self.hidden = bool(marks.get("hidden"))
        self.stdin = bool(marks.get("stdin"))
        self.aliases = ["--" + alias.replace("_", "-") for alias in marks.get("aliases", ())]
        self.required = required and not self.default_cwd
        self.many = schema.get("type") == "array"
        self.kind, self.choices = _kind(schema["many"] if self.many else schema, marks)
        if self.lines:
            self.description = (
                f"{self.description.rstrip('.')}; - reads them from standard input, one a line."
            )
        elif self.stdin:
            self.description = f"{self.description.rstrip('.')}; - reads it from standard input."

    @property
    def lines(self) -> bool:
        """Whether ``-`` among the values stands for the lines of standard input: several things are named at positions."""
        return self.argument and self.many and self.kind == "text"

    @property
    def many_choices(self) -> bool:
        """Whether the choices are too many to stand beside the name of the option."""
        return sum(len(str(choice)) + 1 for choice in self.choices) > MOST_CHOICES

    @property
    def metavar(self) -> str:
        """The word that stands for the value in help."""
        if self.argument:
            return self.option[2:].upper()
        if self.path:
            return "DIRECTORY"
        if self.file:
            return "FILE"
        if self.kind == "choice" and not self.many_choices:
            return f"[{'|'.join(map(str, self.choices))}]"
        return METAVARS.get(self.kind, "")

    @property
    def usage(self) -> str:
        """How a positional field stands in the usage line."""
        word = self.metavar + ("..." if self.many else "")
        return word if self.required else f"[{word}]"


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """Return the fields of an input schema, in its order."""
    required = schema.get("required", ())
    defs = schema.get("$defs", {})
    return [
        Field(name, _plain(prop, defs), required=name in required)
        for name, prop in schema.get("properties", {}).items()
    ]


def convert(field: Field, text: str) -> Any:
    """Return the value that one word on the command line stands for. Raises ValueError with a reason that fits after the word."""
    if field.kind == "text":
        return text
    if field.kind == "bool":
        return _bool(text)
    if field.kind == "choice":
        return _choice(field.choices, text)
    if field.kind == "pairs":
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError("is not of the form KEY=VALUE")
        return key, _json_or_text(value)
    if field.kind == "any":
        return _json_or_text(text)
    return _strict(field.kind, text)


def collect(field: Field, values: Sequence[Any]) -> Any:
    """Return the converted words of a field that may be repeated as its one value: a list, or an object for pairs."""
    if field.kind != "pairs" or field.many:
        return list(values)
    result = {}
    for key, value in values:
        if key in result:
            raise ValueError(f"{key!r} is given twice")
        result[key] = value
    return result


def _plain(prop: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Return a property with references followed, null taken out of unions, and the element of a list under "many"."""
    schema = dict(prop)
    while "$ref" in schema or "allOf" in schema:
        inner = schema.pop("allOf", [{}])[0]
        if "$ref" in schema:
            inner = defs.get(schema.pop("$ref").rpartition("/")[2], {})
        schema = {**inner, **schema}
    union = [_plain(part, defs) for part in schema.pop("anyOf", schema.pop("oneOf", ()))]
    parts = [part for part in union if part.get("type") != "null"]
    if len(parts) == 1:
        schema = {**parts[0], **schema}
    elif parts:
        schema["union"] = parts
    if isinstance(schema.get("type"), list):
        schema["type"] = next((name for name in schema["type"] if name != "null"), None)
    if schema.get("type") == "array" and "many" not in schema:
        schema["many"] = _plain(schema.get("items", {}), defs)
    return schema


def _kind(schema: Mapping[str, Any], marks: Mapping[str, Any]) -> tuple[str, list[Any]]:
    if "const" in schema:
        return "choice", [schema["const"]]
    if "enum" in schema:
        return "choice", [value for value in schema["enum"] if value is not None]
    kind = schema.get("type")
    if kind == "object":
        return ("pairs" if marks.get("repeated") else "json"), []
    if kind in SCALARS:
        return SCALARS[kind], []
    open_to_text = kind is None and "union" not in schema
    if open_to_text or any(part.get("type") == "string" for part in schema.get("union", ())):
        return "any", []
    return "json", []


def _bool(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("is neither yes nor no")


def _choice(choices: Sequence[Any], text: str) -> Any:
    for choice in choices:
        if str(choice) == text:
            return choice
    raise ValueError(f"is not one of {', '.join(map(str, choices))}")


def _strict(kind: str, text: str) -> Any:
    if kind == "int":
        # int() also takes "1_000" and " 7 ", which nobody means.
        if not text.lstrip("+-").isdecimal() or len(text) > 18:
            raise ValueError("is not a whole number")
        return int(text)
    if kind == "float":
        try:
            number = float(text)
        except ValueError:
            raise ValueError("is not a number") from None
        if number - number != 0:
            raise ValueError("is not a finite number")
        return number
    try:
        return _json(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


def _json_or_text(text: str) -> Any:
    try:
        return _json(text)
    except (ValueError, RecursionError):
        return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_json = lean_json.decoder(parse_constant=_no_constant)
