"""Click's parameters for the fields of an op, and the global options that every command takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dispatch_plugins.cli.fields import collect, convert
from dispatch_plugins.cli.invocation import BEFORE_ONLY, COLORS, FLAGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from dispatch_plugins.cli.fields import Field

    Offer = Callable[[str, str], Iterable[tuple[str, str]]]

GLOBALS = "dispatch_plugins.cli.globals"  # key in click's meta, which nested contexts share
WORDS = "words"


class Word(click.ParamType[Any]):
    """A word on the command line, converted as its field says. offer: what the shell may complete it with besides choices."""

    def __init__(self, field: Field, offer: Offer | None = None) -> None:
        self.field = field
        self.name = field.metavar
        self._offer = offer

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of a word; click reports what is wrong with it."""
        try:
            return convert(self.field, value)
        except ValueError as error:
            return self.fail(f"{value!r} {error}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Return what begins so."""
        del ctx, param
        return completions(self.field, self._offer, incomplete)


class Words(click.ParamType[Any]):
    """All words at positions: left as they are, and completed as the field at their position says."""

    name = "words"

    def __init__(self, fields: Sequence[Field], offer: Offer | None = None) -> None:
        self._fields = [field for field in fields if field.argument]
        self._offer = offer

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Any]:
        """Return what begins so."""
        del param
        before = len(ctx.params.get(WORDS) or ())
        left = [field for field in self._fields if ctx.params.get(dest(field)) in (None, ())]
        for index, field in enumerate(left):
            if index == before or field.many:
                return completions(field, self._offer, incomplete)
        return []


def completions(field: Field, offer: Offer | None, incomplete: str) -> list[Any]:
    """Return click's completion items for a value of a field that begins so."""
    from click.shell_completion import CompletionItem

    if field.path or field.file:
        return [CompletionItem(incomplete, type="dir" if field.path else "file")]
    if field.complete and offer is not None:
        return [
            CompletionItem(value, help=about) for value, about in offer(field.complete, incomplete)
        ]
    return [CompletionItem(str(c)) for c in field.choices if str(c).startswith(incomplete)]


def options_for(fields: Sequence[Field], offer: Offer | None = None) -> list[click.Parameter]:
    """Return the parameters of an op: an option for every field, and one parameter for all words at positions."""
    taken: set[str] = set()
    params: list[click.Parameter] = [_option(field, fields, taken, offer) for field in fields]
    if any(field.argument for field in fields):
        words = Words(fields, offer)
        params.append(click.Argument([WORDS], nargs=-1, required=False, type=words))
    return params


def own_options(op: Mapping[str, Any], taken: Iterable[str] = ()) -> list[click.Parameter]:
    """Return the options that an op has for what it is, whatever its fields are; a name that a field has is left to it.

    help.py says what they do.
    """
    options: list[click.Parameter] = []
    if op["intent"] == "destroy":
        options.append(click.Option(["confirmed", "--yes"], is_flag=True))
        options.append(click.Option(["no_interactive", "--no-interactive"], is_flag=True))
    if op.get("stream"):
        options.append(click.Option(["follow", "--follow/--no-follow"], default=None, is_flag=True))
    owned = set(taken)
    return [option for option in options if not owned & names_of([option])]


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


def _option(
    field: Field, fields: Sequence[Field], taken: set[str], offer: Offer | None
) -> click.Option:
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
        type=Word(field, offer),
        metavar=field.metavar,
        help=field.description,
        hidden=field.hidden or field.argument,
    )
