"""Reading what Codex sends, tolerantly: an odd field costs itself, not the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_plugins.ops.models.contract import Configured, Effort, Model, Profile, Tier

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def models(entries: object, configured: Configured) -> list[Model]:
    """Return the models of a list, in Codex's order, one for each id."""
    found: dict[str, Model] = {}
    for entry in _dicts(entries):
        model_id = _text(entry.get("model")) or _text(entry.get("id"))
        if model_id:
            found.setdefault(model_id, _model(model_id, entry, configured.model_provider))
    return list(found.values())


def profiles(entries: object) -> list[Profile]:
    """Return the permission profiles of a list, in Codex's order."""
    return [
        Profile(
            id=str(entry["id"]),
            description=_text(entry.get("description")),
            allowed=entry.get("allowed") is not False,
            built_in=str(entry["id"]).startswith(":"),
        )
        for entry in _dicts(entries)
        if _text(entry.get("id"))
    ]


def configured(config: object) -> Configured:
    """Return what Codex's configuration says about models."""
    values = config if isinstance(config, dict) else {}
    return Configured(
        model=_text(values.get("model")),
        model_provider=_text(values.get("model_provider")),
        effort=_text(values.get("model_reasoning_effort")),
        service_tier=_text(values.get("service_tier")),
    )


def _model(model_id: str, entry: Mapping[str, Any], provider: str | None) -> Model:
    tiers = [
        Tier(
            id=str(tier["id"]),
            name=_text(tier.get("name")) or str(tier["id"]),
            description=_text(tier.get("description")),
        )
        for tier in _dicts(entry.get("serviceTiers"))
        if _text(tier.get("id"))
    ]
    modalities = entry.get("inputModalities")
    return Model(
        id=model_id,
        provider=provider,
        name=_text(entry.get("displayName")) or model_id,
        description=_text(entry.get("description")),
        default=entry.get("isDefault") is True,
        hidden=entry.get("hidden") is True,
        default_effort=_text(entry.get("defaultReasoningEffort")),
        efforts=[
            Effort(id=str(effort["reasoningEffort"]), description=_text(effort.get("description")))
            for effort in _dicts(entry.get("supportedReasoningEfforts"))
            if _text(effort.get("reasoningEffort"))
        ],
        default_service_tier=_text(entry.get("defaultServiceTier")),
        service_tiers=tiers,
        aliases={tier.name.lower(): tier.id for tier in tiers if tier.name.lower() != tier.id},
        input_modalities=[str(m) for m in modalities] if isinstance(modalities, list) else [],
        upgrade=_text(entry.get("upgrade")),
    )


def _dicts(value: object) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
