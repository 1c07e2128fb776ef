"""Plugins without an installation: modules made in the test."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from dispatch_core.api import Example, Intent, Op, OpInput, OpOutput, TriggerConfig, hookimpl
from dispatch_core.plugin.report import PluginReport

if TYPE_CHECKING:
    from collections.abc import Callable


class NoSettings:
    """A configuration file without anything in it."""

    def section(self, name, model):
        return model()


class EmptyInput(OpInput):
    """Nothing to say."""


class EmptyOutput(OpOutput):
    """Nothing to answer."""


class KindConfig(TriggerConfig):
    """Nothing to configure."""

    kind: str = "any"


async def handle(context, request):
    return EmptyOutput()


@pytest.fixture
def settings() -> NoSettings:
    return NoSettings()


@pytest.fixture
def kind_config() -> type[KindConfig]:
    return KindConfig


@pytest.fixture
def make_op() -> Callable[..., Op]:
    def make(name: str = "acme.deploy", **changes) -> Op:
        values = {
            "summary": "Do nothing",
            "noun": name.partition(".")[0],
            "input": EmptyInput,
            "output": EmptyOutput,
            "handler": handle,
            "intent": Intent.READ,
            "idempotent": True,
            "examples": (Example(input={}, output={}),),
        }
        return Op(name=name, **{**values, **changes})

    return make


@pytest.fixture
def make_report() -> Callable[..., PluginReport]:
    def make(name: str = "acme", **changes) -> PluginReport:
        values = {
            "group": "dispatch.v1.plugins",
            "value": name,
            "dist": f"dist-{name}",
            "version": "1",
            "first_party": False,
        }
        return PluginReport(name=name, **{**values, **changes})

    return make


@pytest.fixture
def make_module() -> Callable[..., ModuleType]:
    """A module with hooks: ``make_module(dispatch_ops=function)``; each function becomes a hook implementation."""

    def make(**hooks) -> ModuleType:
        module = ModuleType("acme")
        for name, function in hooks.items():
            setattr(module, name, hookimpl(function))
        return module

    return make
