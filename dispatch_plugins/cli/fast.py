"""The short way: plain command lines are understood without click, which costs more than the whole call.

Only what click would take in exactly the same way is accepted; anything else, and every mistake, is left to click.
"""

from __future__ import annotations

from dispatch_plugins.cli.arguments import gather
from dispatch_plugins.cli.fields import Field, collect, convert, fields_of
from dispatch_plugins.cli.invocation import BEFORE_ONLY, FLAGS
from dispatch_plugins.cli.names import command_of, hidden, is_taken, words_of

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Plan:
    """What a command line asks for: an op, the values of its fields, and global options.

    follow: whether to go on with a stream; None when nothing was said about it.
    """

    __slots__ = ("fields", "follow", "op", "options", "values")

    def __init__(
        self,
        op: Mapping[str, Any],
        fields: list[Field],
        values: dict[str, Any],
        options: dict[str, Any],
        *,
        follow: bool | None = None,
    ) -> None:
        self.follow = follow
        self.op = op
        self.fields = fields
        self.values = values
        self.options = options


def parse(argv: Sequence[str], manifest: Mapping[str, Any]) -> Plan | None:
    """Return what a plain command line asks for, or None when click has to look at it."""
    options: dict[str, Any] = {}
    rest = list(argv)
    while rest and rest[0] in FLAGS:
        options[FLAGS[rest.pop(0)]] = True
    found = _find(rest, manifest)
    if found is None or found[0]["intent"] == "destroy":
        return None
    op, rest = found
    fields = fields_of(op["schema"])
    words: list[str] = []
    given: dict[str, list[Any]] = {}
    by_option = {field.option: field for field in fields}
    left = iter(rest)
    for word in left:
        if word == "-" or not word.startswith("-"):
            words.append(word)
        elif word in FLAGS and word != BEFORE_ONLY and not _owned(word, fields):
            options[FLAGS[word]] = True
        elif word in by_option and by_option[word].kind != "bool":
            value = next(left, None)
            if value is None or value.startswith("-"):
                return None
            given.setdefault(word, []).append(value)
        else:
            return None
    values = _values(op, fields, words, {by_option[name]: texts for name, texts in given.items()})
    return None if values is None else Plan(op, fields, values, options)


def _find(
    rest: Sequence[str], manifest: Mapping[str, Any]
) -> tuple[Mapping[str, Any], list[str]] | None:
    """Return the op that the first words name, and what follows; None for everything that is not an op of one or two words."""
    if not rest or is_taken(rest[0], manifest):
        return None
    heads = {tuple(rest[:1]), tuple(rest[:2])}
    matches = [op for op in manifest["ops"] if words_of(op["name"]) in heads and not hidden(op)]
    if len(matches) != 1:
        return None
    return matches[0], list(rest[len(words_of(matches[0]["name"])) :])


def _owned(flag: str, fields: Sequence[Field]) -> bool:
    names = [name for field in fields for name in (field.option, *field.aliases)]
    names += ["--no-" + name[2:] for name in names]
    return flag in names


def _values(
    op: Mapping[str, Any],
    fields: Sequence[Field],
    words: Sequence[str],
    given: Mapping[Field, Sequence[str]],
) -> dict[str, Any] | None:
    try:
        converted: dict[str, Any] = {}
        for field, texts in given.items():
            values = [convert(field, text) for text in texts]
            repeatable = field.many or field.kind == "pairs"
            converted[field.name] = collect(field, values) if repeatable else values[-1]
        return gather(command_of(op["name"]), fields, words, converted)
    except ValueError:  # ValidationFailed is one too: click's way says it with the right hint
        return None
