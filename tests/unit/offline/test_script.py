"""What the model answers follows from the conversation alone."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dispatch_core.offline.conversation import read_conversation
from dispatch_core.offline.script import Plan, Script, ScriptError, plan, unscripted_reply

SUMMARY = "Another language model started to solve this problem and produced a summary: …"


def user(text: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content}


def assistant(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "content": content}


def called(kind: str = "function_call") -> dict[str, Any]:
    return {"type": kind, "name": "exec_command", "arguments": "{}", "call_id": "c"}


def returned() -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": "c", "output": ""}


def planned(*items: object, default: Script | None = None) -> Plan:
    return plan(read_conversation({"model": "m", "input": list(items)}), default)


def reply(*items: object) -> str | None:
    found = planned(*items)
    return found.step.message(found.prompt)


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("Say hello", "Offline reply: Say hello"),
        ("\n\n  first  \nsecond", "Offline reply: first"),
        ("x" * 300, "Offline reply: " + "x" * 200),
        ("é漢🙂", "Offline reply: é漢🙂"),
        (" \r\n\t", "Offline reply: (no text)"),
        ("", "Offline reply: (no text)"),
    ],
)
def test_the_unscripted_reply_is_the_first_line_with_text(prompt: str, sentence: str) -> None:
    assert unscripted_reply(prompt) == sentence


def test_the_last_user_message_is_answered_and_not_the_context_codex_adds() -> None:
    items = [
        user("one"),
        assistant("Offline reply: one"),
        user("two"),
        user("<turn_aborted>\nThe user interrupted"),
        user("<environment_context>\n<cwd>/</cwd>"),
    ]

    answer = reply(*items)

    assert answer == "Offline reply: two"


def test_a_directive_is_not_part_of_the_text_it_stands_in() -> None:
    answer = reply(user('before offline:{"chunks": 2} after'))

    assert answer == "Offline reply: before  after"


def test_the_last_message_with_a_directive_decides_and_stays_in_force() -> None:
    items = [user('a offline:{"text": "A"}'), assistant("A"), user('b offline:{"text": "B"}')]

    later = reply(*items, assistant("B"), user("c"))

    assert later == "B"


def test_an_empty_directive_ends_the_one_before() -> None:
    answer = reply(user('a offline:{"text": "A"}'), assistant("A"), user("b offline:{}"), user("c"))

    assert answer == "Offline reply: c"


def test_the_step_is_the_number_of_replies_since_the_directive() -> None:
    start = user('go offline:{"steps": [{"text": "0"}, {"text": "1"}, {"text": "2"}]}')

    answers = [
        reply(start),
        reply(start, called(), returned()),
        reply(start, called(), returned(), called("custom_tool_call"), returned()),
        reply(start, assistant("a"), user("x"), assistant("b"), user("y"), assistant("c")),
    ]

    assert answers == ["0", "1", "2", "2"]


def test_a_message_and_several_calls_of_one_reply_are_one_step() -> None:
    start = user('go offline:{"steps": [{"text": "0"}, {"text": "1"}, {"text": "2"}]}')
    thought = {"type": "reasoning", "summary": []}

    found = planned(start, assistant("a"), thought, called(), called(), returned(), returned())

    assert found.index == 1


def test_a_compacted_history_does_not_start_the_script_again() -> None:
    start = user('go offline:{"steps": [{"call": {"name": "exec_command"}}, {"text": "end"}]}')

    answer = reply(start, user(SUMMARY), user("next"))

    assert answer == "end"


def test_the_default_script_applies_where_no_directive_is() -> None:
    default = Script.parse({"steps": [{"text": "0"}, {"text": "1"}]})

    plain = planned(user("a"), assistant("0"), user("b"), called(), default=default)
    directed = planned(user('a offline:{"text": "mine"}'), default=default)

    assert (plain.step.text, directed.step.text) == ("1", "mine")


def test_a_retry_is_the_same_occasion_and_the_same_words_again_are_another() -> None:
    text = user('x offline:{"http": 500}')

    first, retry, again = planned(text), planned(text), planned(text, user("y"), text)

    assert first.occasion == retry.occasion != again.occasion


@pytest.mark.parametrize(
    ("directive", "reason"),
    [
        ('{"tetx": 1}', "tetx: Extra inputs are not permitted"),
        ('{"text": "a"', "not JSON: Expecting ',' delimiter"),
        ('{"http": 200}', "http.status: Input should be greater than or equal to 400"),
        ('{"cut": true, "hang": true}', "cut and hang exclude each other"),
        ('{"times": 2}', "times needs one of http, failed, incomplete, cut, hang"),
        ('{"steps": []}', "steps: Tuple should have at least 1 item"),
        ('{"steps": [{}, {"delay": -1}]}', "steps.1.delay: Input should be greater than"),
        ('{"steps": [{}], "text": "a"}', "text: Extra inputs are not permitted"),
        ('{"text": "abc", "repeat": 99999999}', "the repeated text is longer than"),
        ('{"headers": {"Content-Length": "1"}}', "the header content-length cannot be set"),
        ('{"headers": {"x": "a\\r\\nb: c"}}', "headers.x: String should match pattern"),
        ('{"call": {"arguments": {}}}', "call.0.name: Field required"),
        ('{"delay": NaN}', "delay: Input should be"),
        ('{"a":' * 100_000, "not JSON: maximum recursion depth exceeded"),
    ],
)
def test_a_bad_directive_is_answered_with_what_is_wrong(directive: str, reason: str) -> None:
    answer = reply(user(f"do it offline:{directive}"))

    assert answer is not None
    assert answer.startswith("Offline script error: ")
    assert reason in answer


def test_a_step_with_a_call_says_nothing_unless_told_to() -> None:
    silent = reply(user('offline:{"call": {"name": "exec_command"}}'))
    talking = reply(user('offline:{"text": "hm", "call": [{"name": "a"}, {"name": "b"}]}'))

    assert (silent, talking) == (None, "hm")


def test_a_script_that_is_not_an_object_is_refused() -> None:
    with pytest.raises(ScriptError, match="the step: Input should be a valid dictionary"):
        Script.parse([1])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "input", "client_metadata"]), inner
        )
    ),
    max_leaves=10,
)


# Neither limit is about us: a shared machine is slow at building the first inputs.
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(["input", "model", "client_metadata"]), json_values))
def test_any_body_gets_the_same_reply_twice(body: dict[str, Any]) -> None:
    first, second = (plan(read_conversation(json.loads(json.dumps(body)))) for _ in range(2))

    assert first == second
    assert first.step.message(first.prompt) is not None
