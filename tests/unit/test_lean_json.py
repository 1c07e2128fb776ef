"""The lean codec says and takes exactly what the standard library's json does."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core import lean_json

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
SPACE = st.text(" \t\n\r", max_size=3)


@given(VALUES)
def test_what_is_written_is_what_json_writes(value):
    compact = json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    assert lean_json.dumps(value) == compact
    assert lean_json.pretty(value) == json.dumps(value, indent=2, ensure_ascii=False)


@given(VALUES, SPACE, SPACE)
def test_what_json_writes_is_read_with_space_around_it(value, before, after):
    assert lean_json.loads(before + json.dumps(value) + after) == value


@given(st.text(st.sampled_from('{}[]",:0123456789.eE+-truefalsn\\u \n'), max_size=30))
def test_a_text_is_read_or_refused_as_json_does(text):
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError, match=r".+"):
            lean_json.loads(text)
    else:
        found = lean_json.loads(text)
        assert found == expected or (math.isnan(found) and math.isnan(expected))


@pytest.mark.parametrize("value", [math.nan, math.inf, [math.nan]])
def test_what_json_has_no_number_for_is_refused(value):
    with pytest.raises(ValueError, match="JSON compliant"):
        lean_json.dumps(value)


def test_what_json_has_no_form_for_is_refused():
    with pytest.raises(TypeError, match="set is not JSON serializable"):
        lean_json.dumps({"a": set()})


def test_hooks_see_what_they_are_for():
    decode = lean_json.decoder(
        object_pairs_hook=list,
        parse_float=str,
        parse_int=lambda text: hex(int(text)),
        parse_constant=len,
    )

    assert decode('{"a": 1, "a": 2.5, "b": NaN}') == [("a", "0x1"), ("a", "2.5"), ("b", 3)]


def test_without_the_c_half_json_itself_does_the_same():
    code = (
        "import sys; sys.modules['_json'] = None\n"
        "from dispatch_core import lean_json as lean\n"
        "assert lean.loads('[1, {\"a\": null}]') == [1, {'a': None}]\n"
        "assert lean.dumps({'a': ['é']}) == '{\"a\":[\"é\"]}'\n"
        "assert lean.decoder(object_pairs_hook=list)('{\"a\": 1}') == [('a', 1)]\n"
        "assert 'json' in sys.modules\n"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
