"""What there is to run, in the order and sections in which help shows it."""

from __future__ import annotations

from dispatch_core import lean_json
from dispatch_plugins.cli.names import (
    FIRST_PARTY,
    NATIVE,
    PROGRAM,
    command_of,
    hidden,
    words_of,
)

TYPE_CHECKING = False  # typing costs too much
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

SECTIONS = ("Threads", "Messages", "Deliveries", "Requests", "Goals", "Triggers", "Daemon")
LAST = "Plugins"
SIMILAR = 3
READABLE = 90  # characters of a command line that opens the root help, if there is one


class Catalog:
    """The ops, native commands and other surfaces of a manifest.

    groups: the first words of two-word commands, with their ops by second word. ops: the one-word commands.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self.manifest = manifest
        self.visible = [op for op in manifest["ops"] if not hidden(op)]
        self.surfaces = [s for s in manifest["surfaces"] if s["process"] and s["name"] != "cli"]
        self.first_party = {
            plugin["dist"] for plugin in manifest["plugins"] if plugin["first_party"]
        }
        self.first_party.add(FIRST_PARTY)
        self.ops: dict[str, Mapping[str, Any]] = {}
        self.groups: dict[str, dict[str, Mapping[str, Any]]] = {}
        for op in self.visible:
            head, *tail = words_of(op["name"])
            if tail:
                self.groups.setdefault(head, {})[tail[0]] = op
            else:
                self.ops[head] = op

    def names(self) -> list[str]:
        """Return every first word, sorted."""
        surfaces = [surface["name"] for surface in self.surfaces]
        return sorted({*NATIVE, *self.ops, *self.groups, *surfaces})

    def sections(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Return the sections of the root help as (title, [(command, summary)]), without empty ones."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for op in self.visible:
            row = (" ".join(words_of(op["name"])), op["summary"].rstrip("."))
            rows.setdefault(self._section(op["dist"], op["noun"]), []).append(row)
        for surface in self.surfaces:
            row = (surface["name"], surface["summary"].rstrip("."))
            rows.setdefault(self._section(surface["dist"], "daemon"), []).append(row)
        for name, (_, summary, section) in NATIVE.items():
            rows.setdefault(section, []).append((name, summary))
        known = [title for title in SECTIONS if title in rows]
        others = [title for title in rows if title not in (*SECTIONS, LAST)]
        others.sort(key=lambda title: (title.startswith("From "), title))
        return [(title, rows[title]) for title in (*known, *others, LAST) if title in rows]

    def examples(self) -> list[str]:
        """Return the command lines that open the root help: how to write to each noun of our own.

        Of the ops on a noun, one that takes text is shown if there is one: what a newcomer has is something to say.
        """
        shown: dict[str, Mapping[str, Any]] = {}
        for op in self.visible:
            if op["dist"] in self.first_party and op["intent"] == "write" and _good(op):
                best = shown.setdefault(self._section(op["dist"], op["noun"]), op)
                if _takes_text(op) and not _takes_text(best):
                    shown[self._section(op["dist"], op["noun"])] = op
        ops = [shown[title] for title in SECTIONS if title in shown]
        lines = [[command_line(op, example["input"]) for example in _good(op)] for op in ops]
        return [
            next((line for line in of if len(line) <= READABLE), min(of, key=len)) for of in lines
        ]

    def owner(self, op: Mapping[str, Any]) -> str | None:
        """Return the distribution of a third party's op."""
        return None if op["dist"] in self.first_party else op["dist"]

    def _section(self, dist: str, noun: str) -> str:
        if dist not in self.first_party:
            return f"From {dist}"
        title = f"{noun[:1].upper()}{noun[1:]}"
        if title in SECTIONS:
            return title
        return f"{title.removesuffix('y')}ies" if title.endswith("y") else f"{title}s"


def _good(op: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [example for example in op["examples"] if example.get("error") is None]


def _takes_text(op: Mapping[str, Any]) -> bool:
    fields = op["schema"].get("properties", {}).values()
    return any(field.get("x-cli", {}).get("stdin") for field in fields)


def similar(word: str, candidates: Iterable[str]) -> list[str]:
    """Return the names that somebody may have meant."""
    from difflib import get_close_matches

    return get_close_matches(word, dict.fromkeys(candidates), n=SIMILAR)


def command_line(op: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Return the command line that stands for an input of an op."""
    from dispatch_plugins.cli.fields import fields_of

    front, back = [], []
    skipped = False  # after a position that is left out, the next ones have to be named
    for field in fields_of(op["schema"]):
        value = values.get(field.name)
        if value is None:
            skipped = skipped or field.argument
            continue
        words = _words(field.kind, value, many=field.many)
        if (
            field.argument
            and not skipped
            and not any(word.startswith("-") and word != "-" for word in words)
        ):
            front += [quoted(word) for word in words]
        elif field.kind == "bool" and not field.many:
            back.append(field.option if value else f"--no-{field.option[2:]}")
        else:
            skipped = skipped or field.argument
            joint = "=" if any(word.startswith("-") for word in words) else " "
            back += [f"{field.option}{joint}{quoted(word)}" for word in words]
    return " ".join([command_of(op["name"]), *front, *back])


def quoted(word: str) -> str:
    """Return a word as a shell reads it back."""
    if word and all(char.isalnum() or char in "@%+=:,./-_" for char in word) and word.isascii():
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _words(kind: str, value: Any, *, many: bool) -> Sequence[str]:
    def word(item: Any) -> str:
        text = item if isinstance(item, str) else lean_json.dumps(item)
        ambiguous = kind == "any" and isinstance(item, str) and _is_json(item)
        return lean_json.dumps(item) if ambiguous or kind == "json" else text

    if kind == "pairs" and isinstance(value, dict):
        return [f"{key}={_pair_value(item)}" for key, item in value.items()]
    return [word(item) for item in value] if many else [word(value)]


def _pair_value(item: Any) -> str:
    if isinstance(item, str) and not _is_json(item):
        return item
    return lean_json.dumps(item)


def _is_json(text: str) -> bool:
    try:
        lean_json.loads(text)
    except ValueError:
        return False
    return True


def unknown(catalog: Catalog, words: Sequence[str]) -> tuple[str, str, list[str]]:
    """Return message, hint and near misses for words that name no command."""
    typed = " ".join(words)
    group = catalog.groups.get(words[0]) if len(words) > 1 else None
    names = [f"{words[0]} {name}" for name in group] if group else _phrases(catalog)
    near = similar(typed, names)
    if not near and group is None:
        near = similar(words[0], catalog.names())
    listing = f"{PROGRAM} {words[0]} --help" if group else f"{PROGRAM} --help"
    hint = f"{listing} lists the commands"
    failed = sum(plugin["state"] == "quarantined" for plugin in catalog.manifest["plugins"])
    if failed:
        hint += f"; {failed} plugin{'s' if failed > 1 else ''} failed to load: {PROGRAM} plugins"
    if near:
        hint = f"did you mean {' or '.join(f'{PROGRAM} {name}' for name in near)}? {hint}"
    return f"there is no command {typed!r}", hint, near


def _phrases(catalog: Catalog) -> list[str]:
    return [*catalog.names(), *(" ".join(words_of(op["name"])) for op in catalog.visible)]
