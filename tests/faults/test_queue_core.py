"""The queue core keeps its promises in every order in which things can happen and go wrong that Hypothesis can find."""

from __future__ import annotations

import importlib
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from dispatch_plugins.registry.backend import PeeweeStorage

from .queue_core import Broken, NaiveQueueCore, QueueCore, bind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dispatch_core.api import Storage

    from .conftest import Tier

MEMORY_EXAMPLE = Path(__file__).parents[2] / "plugins" / "examples" / "dispatch-memory-storage"
STEPS = 40  # in one example


@pytest.fixture(params=["registry", "memory"])
def run_core(request, tmp_path, monkeypatch):
    """Return a function that runs a machine over one store for all its examples and returns what it counted."""
    quick = 200
    if request.param == "memory":
        monkeypatch.syspath_prepend(str(MEMORY_EXAMPLE))
        storage = importlib.import_module("dispatch_memory_storage").dispatch_storage()
        stage = _in_memory(storage)
    else:
        stage = _in_the_registry(tmp_path)
        quick = 40  # every write is synced to the disk
    with stage as (storage, call):

        def run(core: type[QueueCore], tier: Tier, **options: Any) -> type[QueueCore]:
            machine = bind(core, storage, call)
            run_state_machine_as_test(
                seed(tier.random.getrandbits(64))(machine),
                settings=_settings(tier, quick, **options),
            )
            return machine

        yield run


@pytest.mark.fault("D11")
def test_every_promise_holds_whatever_happens(run_core, tier, figures):
    counted = run_core(QueueCore, tier).counted

    # All of it has happened, and nothing that was in flight at a reboot and left no trace was sent again.
    assert min(counted["model calls"], counted["crashes"], counted["requeue"], counted["adopt"]) > 0
    assert counted["of these parked"] == counted["absent after a reboot"] > 0
    assert (counted["lost"], counted["duplicated"]) == (0, 0)
    figures(**{name.replace(" ", "_"): number for name, number in sorted(counted.items())})


@pytest.mark.fault("D5")
@pytest.mark.parametrize("run_core", ["memory"], indirect=True)
def test_sending_again_after_every_crash_is_found_out(run_core, tier):
    with pytest.raises(Broken, match=r"ran twice|in two turns|and it ran"):
        run_core(NaiveQueueCore, tier, phases=(Phase.generate,), report_multiple_bugs=False)


def _settings(tier: Tier, quick: int, **options: Any) -> settings:
    return settings(
        max_examples=tier.rounds(quick, 5_000),
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        **options,
    )


@contextmanager
def _in_memory(storage: Storage) -> Iterator[tuple[Storage, Callable[..., Any]]]:
    yield storage, _run_at_once


@contextmanager
def _in_the_registry(folder: Path) -> Iterator[tuple[Storage, Callable[..., Any]]]:
    storage, stack = PeeweeStorage(folder), AsyncExitStack()
    with start_blocking_portal() as portal:
        portal.call(storage.open, stack)
        try:
            yield storage, portal.call
        finally:
            portal.call(stack.aclose)


def _run_at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a coroutine function that never waits."""
    try:
        function(*arguments).send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError(f"{function} waits")
