"""Model, effort, service tier and permission profile against what Codex says it has."""

from __future__ import annotations

import pytest

from dispatch_core.config.files import Places
from dispatch_core.errors import CodexError, ValidationFailed
from dispatch_plugins.ops.new import catalog, profiles
from dispatch_plugins.ops.new.contract import NewInput
from dispatch_plugins.ops.new.draft import draft

pytestmark = pytest.mark.anyio

EFFORTS = [{"reasoningEffort": "low", "description": ""}, {"reasoningEffort": "high"}]
MODELS = [
    {
        "id": "big",
        "model": "big",
        "isDefault": True,
        "supportedReasoningEfforts": EFFORTS,
        "serviceTiers": [{"id": "priority", "name": "Fast", "description": "2x"}],
    },
    {"id": "old", "model": "old", "additionalSpeedTiers": ["fast"]},
    {"id": "secret", "model": "secret", "hidden": True},
    {"id": "alias", "model": "real-name"},
]


class Codex:
    """Answers with one model a page. calls: the methods asked."""

    def __init__(self, **config):
        self.config, self.calls = config, []

    async def request(self, method, params):
        self.calls.append(method)
        if method == "config/read":
            return {"config": self.config}
        at = int(params.get("cursor", "0"))
        if method == "permissionProfile/list":
            rows = [{"id": ":read-only", "allowed": True}, {"id": ":workspace", "allowed": False}]
        else:
            rows = MODELS
        more = str(at + 1) if at + 1 < len(rows) else None
        return {"data": [rows[at]], "nextCursor": more}


@pytest.fixture
def resolve(tmp_path):
    home = tmp_path / ".dispatch"

    async def resolve(codex, **fields):
        made = draft(
            NewInput(name="x", cwd="/", **fields), Places(home=home, user=home / "config.toml")
        )
        await profiles.check(codex, made)
        return await catalog.resolve(codex, made)

    return resolve


async def test_without_a_choice_codex_is_not_asked(resolve):
    codex = Codex()

    made = await resolve(codex, summary="none")

    assert codex.calls == []
    assert made.settings.model is None


async def test_every_page_is_read(resolve):
    codex = Codex()

    made = await resolve(codex, model="alias")

    assert codex.calls.count("model/list") == len(MODELS)
    assert made.settings.model == "real-name"


async def test_a_hidden_model_can_be_named_and_is_not_offered(resolve):
    assert (await resolve(Codex(), model="secret")).settings.model == "secret"

    with pytest.raises(ValidationFailed) as caught:
        await resolve(Codex(), model="bigg")

    assert caught.value.details == {
        "field": "model",
        "known": ["big", "old", "alias"],
        "similar": ["big"],
    }
    assert "did you mean big?" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "sent"),
    [("fast", "priority"), ("Fast", "priority"), ("PRIORITY", "priority"), ("Auto", "auto")],
)
async def test_a_tier_is_found_by_id_or_name(resolve, given, sent):
    assert (await resolve(Codex(), model="big", service_tier=given)).settings.service_tier == sent


async def test_fast_is_found_among_the_older_tiers(resolve):
    made = await resolve(Codex(), model="old", service_tier="FAST")

    assert made.settings.service_tier == "fast"


async def test_no_tier_is_sent_unless_it_was_asked_for(resolve):
    assert (await resolve(Codex(), model="big")).settings.service_tier is None


@pytest.mark.parametrize(
    ("fields", "field", "known"),
    [
        ({"effort": "ultra"}, "effort", ["low", "high"]),
        ({"model": "big", "effort": "ultra"}, "effort", ["low", "high"]),
        ({"service_tier": "slow"}, "service_tier", ["priority"]),
        ({"model": "alias", "service_tier": "fast"}, "service_tier", []),
        ({"permissions": ":readonly"}, "permissions", [":read-only"]),
        ({"permissions": ":workspace"}, "permissions", [":read-only"]),
    ],
)
async def test_what_the_model_does_not_offer_is_refused_with_what_it_does(
    resolve, fields, field, known
):
    with pytest.raises(ValidationFailed) as caught:
        await resolve(Codex(), **fields)

    assert (caught.value.details["field"], caught.value.details["known"]) == (field, known)


async def test_an_effort_is_checked_against_the_configured_model(resolve):
    made = await resolve(Codex(model="old"), effort="ultra")

    assert made.settings.effort == "ultra"
    assert made.settings.model is None


async def test_a_model_of_another_provider_is_taken_as_it_is(resolve):
    made = await resolve(
        Codex(), model="llama", model_provider="ollama", effort="x", service_tier="y"
    )

    assert (made.settings.model, made.settings.effort) == ("llama", "x")
    assert "the provider ollama decides" in made.notes[0]
    assert len(made.notes) == 3


@pytest.mark.parametrize(
    "config",
    [{}, {"model_provider": "mine", "model_catalog_json": "/m.json"}, {"model_provider": "mine"}],
)
async def test_an_unknown_model_of_the_provider_in_the_catalog_is_refused(resolve, config):
    provider = "mine" if "model_catalog_json" in config else "openai"

    with pytest.raises(ValidationFailed, match="'llama' is unknown"):
        await resolve(Codex(**config), model="llama", model_provider=provider)


async def test_an_answer_that_makes_no_sense_is_an_error_of_codex(resolve):
    class Odd(Codex):
        async def request(self, method, params):
            return {"data": [{"id": 3}], "config": None}

    with pytest.raises(CodexError, match="not understood"):
        await resolve(Odd(), model="big")
