"""Click's parameters for the fields of an op, and the global options that every command takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dispatch_plugins.cli.fields import collect, convert
from dispatch_plugins.cli.invocation import BEFORE_ONLY, COLORS, FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dispatch_plugins.cli.fields import Field

GLOBALS = "dispatch_plugins.cli.globals"  # key in click's meta, which nested contexts share
WORDS = "words"
GLOBAL_HELP = (
    ("--json", "Print one JSON document, on a terminal too."),
    ("--no-start", "Fail when the daemon is not running instead of starting it."),
    ("--safe", "Leave third-party plugins out; stands before the command."),
    ("--debug", "Show the traceback of an error."),
    ("--color [auto|always|never]", "When to colour. NO_COLOR and FORCE_COLOR are respected."),
    ("-h, --help", "Show this help."),
)


class Word(click.ParamType[Any]):
    """A word on the command line, converted as its field says."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.name = field.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a word; click reports what is wrong with it."""
        try:
            return convert(self.field, value)
        except ValueError as error:
            return self.fail(f"{value!r} {error}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Return the choices that begin so."""
        del ctx, param
        from click.shell_completion import CompletionItem

        if self.field.path:
            return [CompletionItem(incomplete, type="dir")]
        return [CompletionItem(str(c)) for c in self.field.choices if str(c).startswith(incomplete)]


def options_for(fields: Sequence[Field]) -> list[click.Parameter]:
    """Return the parameters of an op: an option for every field, and one parameter for all words at positions."""
    taken: set[str] = set()
    params: list[click.Parameter] = [_option(field, fields, taken) for field in fields]
    if any(field.argument for field in fields):
        params.append(click.Argument([WORDS], nargs=-1, required=False, type=click.UNPROCESSED))
    return params


def values_from(fields: Sequence[Field], ctx: click.Context) -> dict[str, Any]:
    """Return the converted values of the options that were given, by field name."""
    given: dict[str, Any] = {}
    for field in fields:
        value = ctx.params.get(dest(field))
        if value is None or value == ():
            continue
        try:
            repeatable = field.many or field.kind == "pairs"
            given[field.name] = collect(field, value) if repeatable else value
        except ValueError as error:
            raise click.BadParameter(str(error), ctx=ctx, param_hint=field.option) from None
    return given


def global_options(taken: Iterable[str] = (), *, root: bool = False) -> list[click.Parameter]:
    """Return the global options; a name that the command itself uses is left to it.

    root: for dispatch itself, which alone takes --safe: after a command it would be too late to choose the plugins.
    """
    options: list[click.Parameter] = []
    owned = set(taken) if root else {*taken, BEFORE_ONLY}
    for flag, name in FLAGS.items():
        if flag not in owned:
            options.append(
                _global([f"global_{name}", flag], is_flag=True, flag_value=True, type=bool)
            )
    if "--color" not in owned:
        options.append(_global(["global_color", "--color"], type=click.Choice(COLORS)))
    return options


def names_of(params: Iterable[click.Parameter]) -> set[str]:
    """Return every option name of some parameters."""
    return {name for param in params for name in (*param.opts, *param.secondary_opts)}


def dest(field: Field) -> str:
    """Return the name under which click keeps a field; field names themselves may clash with click's own."""
    return f"field_{field.name}".lower()


def _global(decls: list[str], **attrs: Any) -> click.Option:
    return click.Option(
        decls, default=None, expose_value=False, callback=_remember, hidden=True, **attrs
    )


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None:
        name = str(param.name).removeprefix("global_")
        ctx.meta.setdefault(GLOBALS, {})[name] = value


def _option(field: Field, fields: Sequence[Field], taken: set[str]) -> click.Option:
    own = {other.option for other in fields if other is not field}
    names = [field.option, *(a for a in field.aliases if a not in own and a not in taken)]
    taken.update(names)
    if field.kind == "bool" and not field.many:
        # "--x/--no-x"; a field that is called no_x keeps that name for itself.
        pairs = []
        for name in names:
            no = f"--no-{name[2:]}"
            pairs.append(name if no in own or no in taken else f"{name}/{no}")
        return click.Option(
            [dest(field), *pairs], default=None, is_flag=True, flag_value=True, type=bool
        )
    return click.Option(
        [dest(field), *names],
        default=None,
        multiple=field.many or field.kind == "pairs",
        type=Word(field),
        metavar=field.metavar,
        help=field.description,
        hidden=field.hidden or field.argument,
    )
