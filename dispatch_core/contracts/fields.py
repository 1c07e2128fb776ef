"""How an input field appears on the command line, said once beside the field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field

if TYPE_CHECKING:
    from pydantic.config import JsonDict

EXTRA = "x-cli"
THREAD = "Ref, id, handle (@name) or title of a managed thread."


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# One selector stands for a list of it, so that an op for many threads is called like an op for one.
Selectors = Annotated[list[str], BeforeValidator(_several)]


def cli_field(  # noqa: PLR0913 -- marks, all by keyword
    default: Any = ...,
    *,
    description: str,
    argument: bool = False,
    path: bool = False,
    file: bool = False,
    default_cwd: bool = False,
    repeated: bool = False,
    hidden: bool = False,
    stdin: bool = False,
    aliases: tuple[str, ...] = (),
    complete: str = "",
    **constraints: Any,
) -> Any:
    """Return a pydantic field with its place on the command line.

    argument: positional (it can be given as an option as well). path: made absolute in the caller and must be a directory.
    file: made absolute in the caller and must be a file. default_cwd: the caller's working directory when not given.
    repeated: KEY=VALUE, any number of times, for an object. hidden: not shown in help. stdin: ``-`` reads the value from
    standard input. aliases: further option names without dashes. complete: what the shell completes it with: "thread",
    "trigger", "model" or "preset". constraints: pydantic's, such as min_length.
    """
    marks: JsonDict = {
        "argument": argument,
        "path": path,
        "file": file,
        "default_cwd": default_cwd,
        "repeated": repeated,
        "hidden": hidden,
        "stdin": stdin,
        "aliases": list(aliases),
        "complete": complete,
    }
    shown: JsonDict = {name: value for name, value in marks.items() if value}
    if not shown:
        return Field(default, description=description, **constraints)
    return Field(default, description=description, json_schema_extra={EXTRA: shown}, **constraints)


def thread_field(
    default: Any = ..., *, description: str = THREAD, argument: bool = True, **constraints: Any
) -> Any:
    """Return the field in which an op takes the selector of a thread: positional, completed by the shell."""
    return cli_field(
        default, description=description, argument=argument, complete="thread", **constraints
    )
