"""The examples of ops as tests: one small world, every example, any surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dispatch_core.testing.daemon import Dispatch

PHASES = ("read", "write", "destroy")


def make_world(dispatch: Dispatch) -> None:
    """Create the example world.

    Thread ``@builder`` has one finished turn, the answer to "Say hello"; ``@reviewer`` has none; the trigger ``nightly`` sends
    "Summarise the day" to @reviewer at three in the morning. ``@spare`` has two finished turns and is there to be changed;
    ``@retired`` has one and is archived. ``@planner`` has a turn that does not end, and behind it the queued messages
    "Plan Monday", "Plan Tuesday" and "Plan Friday", with the idempotency keys monday, tuesday and friday; "Plan Sunday" with the
    key sunday was cancelled. "Say hello" has the key hello.
    """
    for name, *texts in (
        ("builder", "Say hello"),
        ("reviewer",),
        ("spare", "One", "Two"),
        ("retired", "Done"),
    ):
        dispatch.json("new", name, "--cwd", "/")
        for text in texts:
            key = ("--idempotency-key", "hello") if text == "Say hello" else ()
            dispatch.json("send", f"@{name}", text, *key)
            dispatch.json("wait", f"@{name}", "--timeout", "60")
    dispatch.json("archive", "@retired", "--yes")
    dispatch.json("new", "planner", 'Plan the year offline:{"delay": 3600}', "--cwd", "/")
    for day in ("Sunday", "Monday", "Tuesday", "Friday"):
        key = ("--idempotency-key", day.lower())
        dispatch.json("send", "@planner", f"Plan {day}", "--queue", *key)
    dispatch.json("delivery", "cancel", "sunday")
    words = (
        "--when",
        "cron",
        "--cron",
        "0 3 * * *",
        "--thread",
        "@reviewer",
        "--text",
        "Summarise the day",
    )
    dispatch.json("trigger", "add", "nightly", *words)


def in_order(
    ops: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield (op, example) so that all can run in one world: reads and refusals first, then writes, then what destroys."""
    pairs = [(op, example) for op in ops for example in op["examples"]]
    for phase in PHASES:
        for op, example in pairs:
            harmless = op["intent"] == "read" or "error" in example
            if (phase == "read") == harmless and (harmless or op["intent"] == phase):
                yield op, example


def mismatch(expected: Any, actual: Any, path: str = "output") -> str | None:
    """Return where actual lacks what an example promises, or None. Objects may have more fields, lists may not."""
    parts: list[tuple[Any, Any, str]]
    if isinstance(expected, dict) and isinstance(actual, dict):
        missing = [name for name in expected if name not in actual]
        if missing:
            return f"{path}.{missing[0]} is missing"
        parts = [(value, actual[name], f"{path}.{name}") for name, value in expected.items()]
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        pairs = zip(expected, actual, strict=True)
        parts = [(wanted, found, f"{path}[{i}]") for i, (wanted, found) in enumerate(pairs)]
    else:
        return None if expected == actual else f"{path} is {actual!r}, not {expected!r}"
    return next((found for part in parts if (found := mismatch(*part))), None)


def command_line(op: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    """Return the words of the command that gives these values, every field as an option."""
    words = [*op["name"].split(".")]
    if op["intent"] == "destroy":
        words.append("--yes")
    for name, value in values.items():
        option = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{option[2:]}")
        elif isinstance(value, dict):
            words += [part for key, item in value.items() for part in (option, f"{key}={item}")]
        elif isinstance(value, list):
            words += [part for item in value for part in (option, str(item))]
        else:
            words.append(f"{option}={value}")
    return words
