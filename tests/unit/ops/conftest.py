"""The world of the lanes' tests, and the context that a handler gets in it."""

from __future__ import annotations

import sys
from importlib import util
from pathlib import Path
from types import SimpleNamespace

import pytest

from dispatch_core.contracts.caller import HUMAN
from dispatch_core.contracts.context import OpContext

_spec = util.spec_from_file_location(
    "tests_lane_world", Path(__file__).parents[1] / "engine" / "conftest.py"
)
_lanes = sys.modules[_spec.name] = util.module_from_spec(_spec)
_spec.loader.exec_module(_lanes)

storage, world, gate, lost_answer = _lanes.storage, _lanes.world, _lanes.gate, _lanes.lost_answer


@pytest.fixture
def context(world):
    status = {
        "state": "degraded",
        "reason": "it broke\x1b[31m",
        "fix": "mend it",
        "version": "1",
        "build": "b",
        "instance": "i",
        "manifest": "m",
        "pid": 1,
        "python": "3.11",
        "started_at": world.clock.now(),
        "uptime": 1.0,
        "rss_bytes": None,
        "home": "/h",
        "socket": "/h/s",
        "log": "/h/l",
        "offline": True,
        "codex": {
            "state": "degraded",
            "version": None,
            "binary": None,
            "source": None,
            "pid": None,
            "started_at": None,
            "uptime": None,
            "epoch": None,
            "generation": None,
            "rss_bytes": None,
            "restarts": 2,
            "last_exit": "it broke\x1b[31m",
            "last_exit_at": world.clock.now(),
            "breaker": {"state": "open", "exits": 5, "openings": 1, "next_try_in": 42.2},
            "heartbeat": None,
            "traffic": None,
            "notes": ["Invalid configuration; using defaults."],
        },
        "plugins": {"loaded": 3, "disabled": 1, "quarantined": ["acme"]},
    }
    daemon = SimpleNamespace(status=lambda: status, log_tail=lambda limit: ["l\x07"] * limit)
    return OpContext(
        caller=HUMAN,
        lanes=world.lanes,
        deliveries=world.lanes.deliveries,
        requests=None,
        codex=world.codex,
        store=world.storage,
        events=world.events,
        clock=world.clock,
        triggers=None,
        daemon=daemon,
        ops=None,
        history=None,
    )
