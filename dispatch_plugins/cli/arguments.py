"""From the words of a command line to the input of an op: positions, what is missing, and what only the caller can know."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # this is on the path of every command: typing costs too much
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from dispatch_plugins.cli.fields import Field

STDIN = "-"
STDIN_LIMIT = 4 * 1_048_576  # bytes that the longest message can have in UTF-8


def refuse(message: str, hint: str, **details: Any) -> NoReturn:
    """Raise the error for a command line that is wrong."""
    from dispatch_core.errors import ValidationFailed

    raise ValidationFailed(message, hint=hint, details=details)


def gather(
    command: str, fields: Sequence[Field], words: Sequence[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the value of every field that was given, in the order of the fields.

    words: what stands at positions; each goes to the next positional field that was not given as an option.
    given: converted values of options by field name. Raises ValidationFailed for words too many, missing or wrong.
    """
    values = dict(given)
    rest = list(words)
    open_fields = [field for field in fields if field.argument and field.name not in values]
    for index, field in enumerate(open_fields):
        if not rest:
            break
        after = sum(later.required for later in open_fields[index + 1 :])
        count = max(1, len(rest) - after) if field.many else 1
        values[field.name] = _positional(command, field, rest[:count])
        rest = rest[count:]
    if rest:
        refuse(
            f"{command} does not expect {rest[0]!r} here",
            f"put text with spaces in quotes; {command} --help shows what it takes",
            argument=rest[0],
        )
    missing = [field for field in fields if field.required and field.name not in values]
    if missing:
        field = missing[0]
        name = field.metavar if field.argument else field.option
        refuse(f"{command} needs {name}", f"{command} --help shows what it takes", field=field.name)
    return {field.name: values[field.name] for field in fields if field.name in values}


def complete(
    command: str, fields: Sequence[Field], values: Mapping[str, Any], env: Mapping[str, str]
) -> dict[str, Any]:
    """Return the input to send: directories and files absolute and known to exist, what comes from stdin, all valid Unicode.

    Raises ValidationFailed naming the field.
    """
    args = dict(values)
    reader = ""
    for field in fields:
        if field.name not in args:
            if field.default_cwd and (cwd := _default_cwd(field)) is not None:
                args[field.name] = cwd
            continue
        value = args[field.name]
        if field.path or field.file:
            found = [
                _existing(command, field, one, env)
                for one in (value if isinstance(value, list) else [value])
            ]
            args[field.name] = found if isinstance(value, list) else found[0]
        elif _from_stdin(field, value):
            if reader:
                refuse(
                    f"{command}: {reader} and {field.metavar} cannot both be read from standard input",
                    f"write one of them on the command line: {command} --help",
                    field=field.name,
                )
            reader = field.metavar
            args[field.name] = (
                _names(command, field, value) if field.lines else _stdin(command, field)
            )
        _check_text(field, args[field.name])
    return args


def _positional(command: str, field: Field, words: Sequence[str]) -> Any:
    from dispatch_plugins.cli.fields import collect, convert

    word = ""
    try:
        converted = []
        for word in words:
            converted.append(convert(field, word))
        return collect(field, converted) if field.many else converted[0]
    except ValueError as error:
        refuse(
            f"{field.metavar}: {word!r} {error}",
            f"{command} --help shows what it takes",
            field=field.name,
        )


def working_directory(option: str, **details: Any) -> str:
    """Return the directory of the caller. Raises ValidationFailed, naming the option in its place, when that is gone."""
    try:
        return os.getcwd()
    except OSError:
        refuse(
            "the current directory does not exist any more",
            f"change to another directory, or name one with {option}",
            **details,
        )


def absolute(given: str | None, option: str) -> str:
    """Return the whole path of what was given for an option, or the directory of the caller. Raises as working_directory."""
    path = os.path.expanduser(given or "")
    return path if os.path.isabs(path) else os.path.join(working_directory(option), path)


def _default_cwd(field: Field) -> str | None:
    """Return what stands for a directory that was not named; None where nobody can name it and the op does without."""
    if not field.hidden:
        return working_directory(field.option, field=field.name)
    try:
        return os.getcwd()
    except OSError:
        return None


def _existing(command: str, field: Field, value: str, env: Mapping[str, str]) -> str:
    """Return the absolute path of the directory or file that a value names in the caller."""
    home = env.get("HOME")
    if home and (value == "~" or value.startswith("~/")):  # --cwd=~/x reaches us as it is
        value = home + value[1:]
    path = (
        value
        if os.path.isabs(value)
        else os.path.join(working_directory("its whole path", field=field.name), value)
    )
    path = os.path.normpath(path)
    if os.path.isdir(path) if field.path else os.path.isfile(path):
        return path
    what = "directory" if field.path else "file"
    problem = f"is not a {what}" if os.path.exists(path) else "does not exist"
    advice = "create it, or name another" if field.path else "name one that exists"
    refuse(
        f"{field.option}: the {what} {path} {problem}",
        f"{advice}: {command} {field.option} {what.upper()}",
        field=field.name,
        path=path,
    )


def _from_stdin(field: Field, value: Any) -> bool:
    return (field.stdin and value == STDIN) or (field.lines and STDIN in value)


def _names(command: str, field: Field, given: Sequence[str]) -> list[str]:
    """Return what was given with the lines of stdin in the place of ``-``; empty lines count for nothing."""
    read = [line.strip() for line in _stdin(command, field).splitlines()]
    read = [line for line in read if line]
    if not read:
        refuse(
            f"{command}: standard input names no {field.metavar}",
            "give one a line; an empty input is not taken for all of them",
            field=field.name,
        )
    at = given.index(STDIN)
    return [*given[:at], *read, *(word for word in given[at + 1 :] if word != STDIN)]


def _stdin(command: str, field: Field) -> str:
    data = sys.stdin.buffer.read(STDIN_LIMIT + 1)
    if len(data) > STDIN_LIMIT:
        refuse(
            f"the text on stdin is longer than {STDIN_LIMIT:,} bytes",
            "put it in a file, and name the file in a short message",
            field=field.name,
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        refuse(
            f"the text on stdin is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}",
            f"convert it first: iconv -t UTF-8 FILE | {command} … -",
            field=field.name,
            offset=error.start,
        )


def _check_text(field: Field, value: Any) -> None:
    """Refuse words that were not UTF-8 on the command line; Python keeps such bytes as lone surrogates."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            refuse(
                f"{field.option} is not valid UTF-8",
                "type it again, or pass it through stdin" if field.stdin else "type it again",
                field=field.name,
            )
    elif isinstance(value, list):
        for item in value:
            _check_text(field, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(field, key)
            _check_text(field, item)
