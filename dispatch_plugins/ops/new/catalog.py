"""Model, effort and service tier, checked against the catalog that Codex has at this moment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from dispatch_core.api import CodexError, ValidationFailed
from dispatch_plugins.ops.shared.pages import every

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatch_core.api import Codex
    from dispatch_plugins.ops.new.draft import Draft

MODEL_KEYS = ("model", "model_provider", "effort", "service_tier")
OPENAI = "openai"  # the provider that Codex's own catalog describes
TIERS_AS_THEY_ARE = ("auto", "default")


class _Answer(BaseModel):
    model_config = ConfigDict(
        extra="ignore", alias_generator=to_camel, frozen=True, defer_build=True
    )


class _Effort(_Answer):
    reasoning_effort: str


class _Tier(_Answer):
    id: str
    name: str = ""


class Model(_Answer):
    """One model of the catalog, as far as it matters here."""

    id: str
    model: str
    is_default: bool = False
    hidden: bool = False
    supported_reasoning_efforts: tuple[_Effort, ...] = ()
    service_tiers: tuple[_Tier, ...] = ()
    additional_speed_tiers: tuple[str, ...] = ()

    def answers_to(self, name: str) -> bool:
        """Return whether this is the model of that name."""
        return name in (self.id, self.model)

    @property
    def efforts(self) -> list[str]:
        return [effort.reasoning_effort for effort in self.supported_reasoning_efforts]

    @property
    def tiers(self) -> list[str]:
        return [*(tier.id for tier in self.service_tiers), *self.additional_speed_tiers]


class _Config(BaseModel):
    """What Codex is configured with; its keys are those of its own TOML."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, protected_namespaces=(), defer_build=True
    )
    model: str | None = None
    model_provider: str | None = None
    model_catalog_json: str | None = None


class _ConfigRead(_Answer):
    config: _Config = Field(default_factory=_Config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The models that Codex knows, and which of them it would take by itself."""

    models: tuple[Model, ...]
    configured_model: str | None
    configured_provider: str | None
    own: bool

    @property
    def provider(self) -> str:
        """The provider whose models these are: with a catalog of its own in Codex's configuration, the configured one."""
        return (self.configured_provider or OPENAI) if self.own else OPENAI

    def find(self, name: str) -> Model | None:
        """Return the model of that name."""
        return next((model for model in self.models if model.answers_to(name)), None)

    def usual(self) -> Model | None:
        """Return the model that Codex takes when none is named."""
        if self.configured_model is not None:
            return self.find(self.configured_model)
        return next((model for model in self.models if model.is_default), None)


async def resolve(codex: Codex, draft: Draft) -> Draft:
    """Return the draft with model and tier as Codex names them; untouched, without asking Codex, when none of them is set.

    Raises ValidationFailed for a model, effort or tier that does not exist, with what there is.
    """
    if not any(draft.value(key) for key in MODEL_KEYS):
        return draft
    catalog = await read(codex, draft.cwd)
    resolved: dict[str, str] = {}
    notes: list[str] = []
    model = _model(catalog, draft, notes)
    if model is not None and draft.value("model") is not None:
        resolved["model"] = model.model
    if effort := draft.value("effort"):
        _check_effort(model, effort, draft, notes)
    if tier := draft.value("service_tier"):
        resolved["service_tier"] = _tier(model, tier, draft, notes)
    return replace(draft, resolved=resolved, notes=(*draft.notes, *notes))


async def read(codex: Codex, cwd: str) -> Catalog:
    """Return the catalog, every page of it, hidden models included."""
    try:
        found = _ConfigRead.model_validate(await codex.request("config/read", {"cwd": cwd})).config
        listed = await every(codex, "model/list", {"includeHidden": True})
        models = [Model.model_validate(entry) for entry in listed]
    except ValidationError as error:
        raise CodexError(
            f"Codex described its models in a way that is not understood: {error.errors()[0]['msg']}",
            hint="dispatch daemon status shows the version of Codex",
        ) from error
    return Catalog(
        models=tuple(models),
        configured_model=found.model,
        configured_provider=found.model_provider,
        own=found.model_catalog_json is not None,
    )


def _model(catalog: Catalog, draft: Draft, notes: list[str]) -> Model | None:
    """Return the model the thread will use, None for one that only its provider knows."""
    provider = draft.value("model_provider")
    elsewhere = provider is not None and provider != catalog.provider
    name = draft.value("model")
    if name is None:
        return None if elsewhere else catalog.usual()
    found = catalog.find(name)
    if found is not None:
        return found
    if elsewhere:
        notes.append(f"model {name} is not in Codex's catalog; the provider {provider} decides")
        return None
    ids = [model.id for model in catalog.models if not model.hidden]
    raise _unknown(draft, "model", name, ids, "models", "name its provider with --model-provider")


def _check_effort(model: Model | None, effort: str, draft: Draft, notes: list[str]) -> None:
    if model is None:
        notes.append(f"effort {effort} is not checked: the model is not in Codex's catalog")
    elif model.efforts and effort not in model.efforts:
        raise _unknown(draft, "effort", effort, model.efforts, f"efforts of {model.id}")


def _tier(model: Model | None, tier: str, draft: Draft, notes: list[str]) -> str:
    wanted = tier.casefold()
    if wanted in TIERS_AS_THEY_ARE:
        return wanted
    if model is None:
        notes.append(f"service tier {tier} is not checked: the model is not in Codex's catalog")
        return tier
    for known in model.service_tiers:
        if wanted in (known.id.casefold(), known.name.casefold()):
            return known.id
    for deprecated in model.additional_speed_tiers:
        if wanted == deprecated.casefold():
            return deprecated
    raise _unknown(draft, "service_tier", tier, model.tiers, f"service tiers of {model.id}")


def _unknown(
    draft: Draft, field: str, value: str, known: Sequence[str], what: str, otherwise: str = ""
) -> ValidationFailed:
    from difflib import get_close_matches  # noqa: PLC0415 -- for memory: only mistakes need it

    near = get_close_matches(value, known, n=3)
    meant = f"did you mean {' or '.join(near)}? " if near else ""
    there = f"the {what} are {', '.join(known)}" if known else f"there are no {what}"
    source = draft.used[field].source
    origin = "" if source.kind == "option" else f" ({source})"
    step = f"; if it is another provider's, {otherwise}" if otherwise else ""
    return ValidationFailed(
        f"new: {field}: {value!r} is unknown{origin}; {there}",
        hint=f"{meant}dispatch models lists what there is{step}",
        details={"field": field, "known": list(known), "similar": near},
    )
