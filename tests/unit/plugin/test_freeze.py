"""Freeze: every name has one owner."""

from __future__ import annotations

import pytest

from dispatch_core.api import OpOutput, Surface, TriggerKind
from dispatch_core.plugin.catalog import RESERVED, describe, freeze
from dispatch_core.plugin.host import Contribution


def never(config, moment):
    return None


@pytest.fixture
def kind(kind_config):
    return lambda name: TriggerKind(
        name=name, summary="Never", config=kind_config, next_after=never
    )


def surface(name):
    return Surface(name=name, summary="Serve", process="acme:main")


@pytest.fixture
def ours(make_report, make_op):
    """The contribution of a built-in plugin with the ops ``send`` and ``goal.set``, and a surface."""
    report = make_report("send", dist="codex-dispatch", first_party=True)
    return report, Contribution([make_op("send"), make_op("goal.set")], [], [surface("cli")])


def test_sound_contributions_are_in_the_catalog_with_their_owners(ours, make_report, make_op, kind):
    theirs = (make_report(), Contribution([make_op("acme.one")], [kind("acme.never")], []))

    catalog = freeze([ours, theirs])

    assert sorted(catalog.ops) == ["acme.one", "goal.set", "send"]
    assert list(catalog.kinds) == ["acme.never"]
    assert list(catalog.surfaces) == ["cli"]
    assert catalog.owners["acme.one"] is theirs[0]


@pytest.mark.parametrize("name", ["bare", "send", "send.later", "cli.extra", "goal.steal"])
def test_a_third_party_stays_in_a_namespace_of_its_own(ours, make_report, make_op, name):
    report = make_report()
    contribution = Contribution([make_op("acme.one"), make_op(name, noun="acme")], [], [])

    catalog = freeze([ours, (report, contribution)])

    assert (report.state, report.stage) == ("quarantined", "freeze")
    assert repr(name) in report.reason
    assert sorted(catalog.ops) == ["goal.set", "send"]
    assert ours[0].state == "loaded"


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_words_of_dispatch_are_no_namespace_noun_or_surface(make_report, make_op, kind, word):
    reports = [make_report(f"acme{number}") for number in range(4)]
    contributions = [
        Contribution([make_op(f"{word}.one", noun="acme")], [], []),
        Contribution([make_op("acme.one", noun=word)], [], []),
        Contribution([], [kind(f"{word}.never")], []),
        Contribution([], [], [surface(word)]),
    ]

    catalog = freeze(list(zip(reports, contributions, strict=True)))

    assert {report.stage for report in reports} == {"freeze"}
    assert (catalog.ops, catalog.kinds, catalog.surfaces) == ({}, {}, {})


@pytest.mark.parametrize("what", ["op", "kind", "surface"])
@pytest.mark.parametrize("together", [True, False])
def test_a_name_claimed_twice_belongs_to_nobody(make_report, make_op, kind, what, together):
    one = {
        "op": lambda: Contribution([make_op("acme.x")], [], []),
        "kind": lambda: Contribution([], [kind("acme.x")], []),
        "surface": lambda: Contribution([], [], [surface("x")]),
    }[what]
    first, second = make_report("first"), make_report("second")
    twice = one()
    if together:
        for field in ("ops", "kinds", "surfaces"):
            setattr(twice, field, getattr(twice, field) * 2)

    catalog = freeze([(first, twice)] if together else [(first, twice), (second, one())])

    assert first.stage == "freeze"
    assert "acme.x" in first.reason or "surface x" in first.reason
    assert together or "first (dist-first)" in second.reason
    assert (catalog.ops, catalog.kinds, catalog.surfaces) == ({}, {}, {})


def test_a_surface_of_ours_keeps_its_name(ours, make_report):
    report = make_report()

    catalog = freeze([(report, Contribution([], [], [surface("cli")])), ours])

    assert (report.state, ours[0].state) == ("quarantined", "loaded")
    assert catalog.surfaces == {"cli": ours[1].surfaces[0]}


@pytest.mark.parametrize("same", [True, False])
def test_a_surface_cannot_hide_ops(make_report, make_op, same):
    first, second = make_report("first"), make_report("second")
    op, web = make_op("web.one"), surface("web")
    pairs = [(first, Contribution([op], [], [web]))]
    if not same:
        pairs = [(first, Contribution([op], [], [])), (second, Contribution([], [], [web]))]

    catalog = freeze(pairs)

    assert {report.stage for report, _ in pairs} == {"freeze"}
    assert (catalog.ops, catalog.surfaces) == ({}, {})


def test_two_distributions_may_share_a_namespace(make_report, make_op):
    pairs = [
        (make_report("first"), Contribution([make_op("acme.one")], [], [])),
        (make_report("second"), Contribution([make_op("acme.two")], [], [])),
    ]

    assert sorted(freeze(pairs).ops) == ["acme.one", "acme.two"]


def test_the_order_of_plugins_does_not_matter(ours, make_report, make_op):
    def outcome(order):
        reports = [make_report(name) for name in "abc"]
        ops = [["acme.x"], ["acme.x", "acme.y"], ["acme.z"]]
        pairs = [
            (report, Contribution([make_op(name) for name in names], [], []))
            for report, names in zip(reports, ops, strict=True)
        ]
        return sorted(freeze([[ours, *pairs][i] for i in order]).ops)

    assert outcome([0, 1, 2, 3]) == outcome([3, 2, 1, 0]) == ["acme.z", "goal.set", "send"]


def test_an_op_is_described_without_its_code(make_op, make_report):
    info = describe(make_op("acme.one", hidden_from=frozenset({"mcp", "cli"})), make_report())

    assert (info.name, info.noun, info.intent, info.idempotent) == (
        "acme.one",
        "acme",
        "read",
        True,
    )
    assert (info.plugin, info.dist) == ("acme", "dist-acme")
    assert info.schema == {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
        "description": "Nothing to say.",
    }
    assert info.examples == [{"title": "", "input": {}, "output": {}}]
    assert info.hidden_from == ["cli", "mcp"]


def test_the_schema_hash_changes_with_the_contract_only(make_op, make_report):
    class OtherOutput(OpOutput):
        """Another answer."""

    same = describe(make_op("acme.one", summary="Say it differently"), make_report())
    other = describe(make_op("acme.one", output=OtherOutput), make_report())

    base = describe(make_op("acme.one"), make_report())
    assert same.schema_hash == base.schema_hash
    assert other.schema_hash != base.schema_hash
