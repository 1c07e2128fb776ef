"""Models and profiles: every page, once; what is kept, and when it has to do."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from anyio import fail_after

from dispatch_core.contracts.view import View, columns_of
from dispatch_core.errors import (
    CodexError,
    CodexUnavailable,
    OutcomeUnknown,
    StorageError,
    ValidationFailed,
)
from dispatch_plugins.ops.models import handlers
from dispatch_plugins.ops.models.contract import ModelsInput, PermissionsInput
from dispatch_plugins.ops.models.text import render_models, render_permissions
from dispatch_plugins.ops.shared.pages import every
from dispatch_plugins.registry.backend import PeeweeStorage

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 5, 5, tzinfo=UTC)
MODEL = {
    "id": "m1",
    "model": "m1",
    "displayName": "Model one",
    "description": "For everything, at length, and then some more of it, so that the table is too wide",
    "isDefault": True,
    "hidden": False,
    "defaultReasoningEffort": "low",
    "supportedReasoningEfforts": [
        {"reasoningEffort": effort, "description": effort}
        for effort in ("low", "medium", "high", "xhigh", "max", "ultra")
    ],
    "serviceTiers": [{"id": "priority", "name": "Fast", "description": "2x speed"}],
    "defaultServiceTier": None,
    "inputModalities": ["text", "image"],
    "upgrade": None,
}
UNKNOWN_METHOD = "Codex refused permissionProfile/list: Invalid request: unknown variant `permissionProfile/list`, expected"


class Codex:
    """Answers from lists of pages, as the app-server pages: the cursor is an offset."""

    def __init__(self, **lists):
        self.lists = lists
        self.failure = None
        self.asked = []

    async def request(self, method, params):
        self.asked.append((method, dict(params)))
        if self.failure is not None:
            raise self.failure
        if method == "config/read":
            return {"config": {"model": "m1", "model_provider": "openai", "service_tier": 7}}
        pages = self.lists[method.replace("/", "_")]
        at = int(params.get("cursor", 0))
        following = str(at + 1) if at + 1 < len(pages) else None
        return {"data": pages[at], "nextCursor": following}


@pytest.fixture
async def storage(tmp_path):
    async with AsyncExitStack() as stack:
        backend = PeeweeStorage(tmp_path)
        await backend.open(stack)
        yield backend


@pytest.fixture
def world(storage):
    now = [NOW]
    codex = Codex(model_list=[[MODEL], [{**MODEL, "id": "m2", "model": "m2", "hidden": True}]])
    context = SimpleNamespace(
        codex=codex, store=storage, clock=SimpleNamespace(now=lambda: now[0]), lanes=None
    )
    return SimpleNamespace(context=context, codex=codex, now=now)


async def test_every_page_is_read_and_hidden_models_are_shown_when_asked_for(world):
    shown = await handlers.models(world.context, ModelsInput())
    everything = await handlers.models(world.context, ModelsInput(hidden=True))

    assert [model.id for model in shown.models] == ["m1"]
    assert [model.id for model in everything.models] == ["m1", "m2"]
    assert ("model/list", {"includeHidden": True, "cursor": "1"}) in world.codex.asked


async def test_a_tier_can_be_called_by_its_name(world):
    found = await handlers.models(world.context, ModelsInput())

    assert found.models[0].aliases == {"fast": "priority"}
    assert found.models[0].provider == found.configured.model_provider == "openai"
    assert found.configured.service_tier is None  # not a text: Codex changed it


async def test_what_was_said_last_is_shown_with_its_age_and_codex_is_not_asked(world):
    await handlers.models(world.context, ModelsInput())
    world.now[0] += timedelta(hours=3)
    world.codex.asked.clear()

    kept = await handlers.models(world.context, ModelsInput(refresh=False))

    assert (kept.source, kept.refreshed_at) == ("cache", NOW)
    assert [model.id for model in kept.models] == ["m1"]
    assert world.codex.asked == []
    assert "3h ago" in render_models(kept, View(80, color=False, now=world.now[0]))


@pytest.mark.parametrize(
    "failure", [CodexUnavailable("it is gone"), OutcomeUnknown("it went"), CodexError("refused")]
)
async def test_the_cache_stands_in_when_codex_does_not_answer_and_the_answer_says_so(
    world, failure
):
    await handlers.models(world.context, ModelsInput())
    world.codex.failure = failure

    kept = await handlers.models(world.context, ModelsInput())

    assert (kept.source, kept.warning) == ("cache", failure.message)
    assert failure.message in render_models(kept, View(80, color=False, now=NOW))


async def test_without_a_cache_the_failure_is_the_answer(world):
    world.codex.failure = CodexUnavailable("it is gone")

    with pytest.raises(CodexUnavailable):
        await handlers.models(world.context, ModelsInput())


async def test_a_cache_that_cannot_be_written_costs_nothing_but_itself(world):
    class Broken:
        async def put(self, name, value, at):
            raise StorageError("the disk is full")

    world.context.store = SimpleNamespace(cache=Broken())

    found = await handlers.models(world.context, ModelsInput())

    assert found.catalog_state == "ready"


async def test_an_empty_catalog_says_what_to_do(world):
    world.codex.lists["model_list"] = [[]]

    found = await handlers.models(world.context, ModelsInput())

    assert (found.catalog_state, found.models) == ("empty", [])
    assert "codex login" in found.hint


async def test_a_list_that_goes_round_in_circles_is_an_error(world):
    class Circle:
        async def request(self, method, params):
            return {"data": [{}], "nextCursor": "1" if params.get("cursor") != "1" else "2"}

    with fail_after(5), pytest.raises(CodexError) as caught:
        await every(Circle(), "model/list", {})

    assert "circles" in caught.value.message


async def test_odd_entries_cost_only_themselves(world):
    odd = [7, {}, {"id": "x", "serviceTiers": [3, {"name": "n"}], "inputModalities": None}, MODEL]
    world.codex.lists["model_list"] = [odd, [MODEL]]

    found = await handlers.models(world.context, ModelsInput())

    assert [model.id for model in found.models] == ["x", "m1"]
    assert found.models[0].service_tiers == []


async def test_profiles_that_may_not_be_chosen_are_shown_when_asked_for(world, tmp_path):
    world.codex.lists["permissionProfile_list"] = [
        [{"id": ":read-only", "description": None, "allowed": True}],
        [{"id": "ours", "description": "Ours", "allowed": False}],
    ]

    shown = await handlers.permissions(world.context, PermissionsInput(cwd=str(tmp_path)))
    everything = await handlers.permissions(
        world.context, PermissionsInput(cwd=str(tmp_path), disallowed=True)
    )

    assert [profile.id for profile in shown.profiles] == [":read-only"]
    assert [(p.id, p.allowed, p.built_in) for p in everything.profiles] == [
        (":read-only", True, True),
        ("ours", False, False),
    ]
    assert world.codex.asked[0][1] == {"cwd": str(tmp_path)}


async def test_a_codex_without_profiles_is_told_apart_from_one_without_any(world):
    world.codex.failure = CodexError(UNKNOWN_METHOD)

    unsupported = await handlers.permissions(world.context, PermissionsInput())
    world.codex.failure = None
    world.codex.lists["permissionProfile_list"] = [[]]
    empty = await handlers.permissions(world.context, PermissionsInput())

    assert (unsupported.catalog_state, empty.catalog_state) == ("unsupported", "empty")
    assert "upgrade" in unsupported.hint


@pytest.mark.parametrize("cwd", ["relative", "/no/such/directory"])
async def test_a_directory_that_is_none_is_refused(world, cwd):
    with pytest.raises(ValidationFailed):
        await handlers.permissions(world.context, PermissionsInput(cwd=cwd))

    assert world.codex.asked == []


@pytest.mark.parametrize("width", [80, 120])
async def test_the_tables_fit(world, width):
    world.codex.lists["permissionProfile_list"] = [
        [{"id": "a-rather-long-name-of-a-profile", "description": "What it is for. " * 9}]
    ]
    view = View(width, color=False, now=NOW)

    models = render_models(await handlers.models(world.context, ModelsInput(hidden=True)), view)
    profiles = render_permissions(
        await handlers.permissions(world.context, PermissionsInput(disallowed=True)), view
    )

    lines = [*models.splitlines(), *profiles.splitlines()]
    assert max(map(columns_of, lines)) <= width
    assert "[low] medium" in models
    assert "fast" in models
