"""What may stand on the command line of the bridge."""

from __future__ import annotations

import pytest

from dispatch_core.errors import ValidationFailed
from dispatch_plugins.mcp.options import Options, parse


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("", Options()),
        ("mcp", Options()),
        ("mcp --profile flat", Options(profile="flat")),
        ("--profile=readonly --no-start", Options(profile="readonly", start=False)),
        ("--safe --json --color never --no-start mcp --debug", Options(start=False)),
        ("mcp --profile worker --help", Options(help=True)),
        ("--color=auto mcp -h", Options(help=True)),
    ],
)
def test_options_are_read_with_and_without_the_name(line, options):
    assert parse(line.split()) == options


@pytest.mark.parametrize(
    "line", ["mcp mcp", "mcp --safe", "mcp --profile mcp", "mcp extra", "--json=1x --jsn mcp"]
)
def test_anything_else_is_refused_with_a_hint(line):
    with pytest.raises(ValidationFailed) as caught:
        parse(line.split())

    assert caught.value.hint
