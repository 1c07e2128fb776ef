"""JSON through the C half of the standard library's json module.

Importing ``json`` itself costs a command more than everything it then does: its Python half compiles regular expressions. What is
here says and takes exactly the same JSON; where the C half is missing, json does it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing costs more than this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_c_half: Any
try:
    import _json as _c_half
except ImportError:  # another Python
    _c_half = None

WHITESPACE = " \t\n\r"
INDENT = "  "


def decoder(
    *,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
    parse_float: Callable[[str], Any] = float,
    parse_int: Callable[[str], Any] = int,
    parse_constant: Callable[[str], Any] = float,
) -> Callable[[str], Any]:
    """Return a function from a JSON text to its value, which raises ValueError (or RecursionError) for anything else.

    The hooks are those of json.JSONDecoder; parse_constant gets NaN and the infinities.
    """
    if _c_half is None:
        import json

        return json.JSONDecoder(
            object_pairs_hook=object_pairs_hook,
            parse_float=parse_float,
            parse_int=parse_int,
            parse_constant=parse_constant,
        ).decode
    hooks = _Scanning(object_pairs_hook, parse_float, parse_int, parse_constant)
    scan = _c_half.make_scanner(hooks)

    def decode(text: str) -> Any:
        start = len(text) - len(text.lstrip(WHITESPACE))
        try:
            value, end = scan(text, start)
        except StopIteration as error:
            raise ValueError(f"Expecting value: character {error.value}") from None
        if text[end:].strip(WHITESPACE):
            raise ValueError(f"Extra data: character {end}")
        return value

    return decode


def dumps(value: Any) -> str:
    """Return value as compact JSON; text is not escaped to ASCII.

    Raises ValueError for NaN, infinity and circles, TypeError for what JSON has no form for.
    """
    if _c_half is None:
        import json

        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    quoted = _c_half.encode_basestring
    encode = _c_half.make_encoder({}, _refuse, quoted, None, ":", ",", False, False, False)
    return "".join(encode(value, 0))


def pretty(value: Any, margin: str = "\n") -> str:
    """Return value as JSON for people, indented by two spaces; text is not escaped to ASCII. Raises as dumps does."""
    # Most values of an answer are texts, and an encoder of its own for each costs more than the rest.
    if isinstance(value, str):
        return _quoted(value)
    if value is None:
        return "null"
    inner = margin + INDENT
    if isinstance(value, dict) and value:
        members = [f"{_quoted(str(name))}: {pretty(item, inner)}" for name, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(members)}{margin}}}"
    if isinstance(value, (list, tuple)) and value:
        return f"[{inner}{f',{inner}'.join([pretty(item, inner) for item in value])}{margin}]"
    if value is True or value is False:
        return "true" if value else "false"
    return dumps(value)


class _Scanning:
    """What the scanner asks of its context."""

    strict = True
    object_hook = None

    def __init__(
        self, object_pairs_hook: Any, parse_float: Any, parse_int: Any, parse_constant: Any
    ) -> None:
        self.object_pairs_hook = object_pairs_hook
        self.parse_float = parse_float
        self.parse_int = parse_int
        self.parse_constant = parse_constant


_quoted: Callable[[str], str] = dumps if _c_half is None else _c_half.encode_basestring


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


loads = decoder()
