"""The driver: clients that send as fast as they are answered, and somebody who kills what they talk to.

Everything random comes from the generator that is handed in; waits are on conditions, so that a slow machine is only slow.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

from .checker import ENDED, Report, check, gather
from .harness import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from random import Random

    from .harness import World

QUICK_TURN = {"delay": 0.02}
SETTLED = ENDED | {"unknown"}
STREAK = (
    2  # app-servers killed before the daemon is: it does not start again at once what keeps dying
)


class Messages:
    """The messages of one run, each with a marker of its own, and what clients were told of them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.accepted: dict[str, str] = {}
        self.repeated = 0
        self._lock = threading.Lock()
        self._count = 0

    def marker(self) -> str:
        """Return a marker that no other message has."""
        with self._lock:
            self._count += 1
            return f"m-{self._count:06d}"

    def lanes(self, count: int, *, name: str = "lane", **params: Any) -> list[str]:
        """Make threads and return their refs."""
        client = self.world.client()
        cwd = str(self.world.home)
        made = [
            client.call("new", {"name": f"{name}-{n}", "cwd": cwd, **params}) for n in range(count)
        ]
        client.close()
        return [new["thread"]["ref"] for new in made]

    def send(self, lane: str, script: Mapping[str, Any], *, marker: str | None = None) -> str:
        """Have one message accepted and return its marker, which is its idempotency key as well."""
        [marker] = self.send_all([(lane, script, marker or self.marker())])
        return marker

    def send_all(self, messages: Sequence[tuple[str, Mapping[str, Any], str]]) -> list[str]:
        """Have messages accepted, one after the other, over one connection."""
        client = self.world.client()
        for lane, script, marker in messages:
            answer = client.call("send", self.params(lane, script, marker))
            with self._lock:
                self.accepted[marker] = answer["receipt"]["id"]
        with self._lock:
            self.repeated += client.repeated
        client.close()
        return [marker for _, _, marker in messages]

    @staticmethod
    def params(lane: str, script: Mapping[str, Any], marker: str) -> dict[str, Any]:
        """Return what a client asks the daemon for one message."""
        text = f"{marker} offline:{json.dumps(dict(script))}"
        return {"thread": lane, "text": text, "queue": True, "idempotency_key": marker}

    def states(self) -> Counter[str]:
        """Return how many messages there are in each state."""
        rows = self.world.rows("SELECT state, COUNT(*) AS n FROM deliveries GROUP BY state")
        return Counter({row["state"]: row["n"] for row in rows})

    def doubts(self) -> list[str]:
        """Return why it is unknown of messages whether they ran."""
        rows = self.world.rows("SELECT reason FROM deliveries WHERE state = 'unknown'")
        return [str(row["reason"]) for row in rows]

    def state(self, marker: str) -> str | None:
        """Return the state of one message, None before it is stored."""
        rows = self.world.rows("SELECT state FROM deliveries WHERE key = ?", marker)
        return rows[0]["state"] if rows else None

    def begun(self) -> int:
        """Return how many messages were claimed to be sent at least once."""
        [row] = self.world.rows("SELECT COUNT(*) AS n FROM deliveries WHERE attempt > 0")
        return int(row["n"])

    def settled(self) -> bool:
        """Whether nothing is left to do."""
        return not set(self.states()) - SETTLED

    def settle(self, patience: float = PATIENCE) -> None:
        """Return once everything has ended or is known to be unknown; while that goes on, so does the patience."""
        deadline, last = time.monotonic() + patience, Counter[str]()
        while not self.settled():
            if (now := self.states()) != last:
                deadline, last = time.monotonic() + patience, now
            assert time.monotonic() < deadline, f"stuck: {dict(now)}\n{self.world.said()}"
            time.sleep(0.02)

    def report(self, *, damaged: bool = False) -> Report:
        """Check everything against everything."""
        return check(gather(self.world, self.accepted), damaged=damaged)


class Killer:
    """Kills what runs, and starts again what does not start itself. kills: how often, by target."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._streak = 0
        self.kills: Counter[str] = Counter()

    def kill(self, target: str | None = None) -> None:
        """Kill the daemon, the app-server or both, at random when none is named, and return once there is a daemon again."""
        target = target or self._random.choice(("daemon", "codex", "both"))
        if target == "codex" and self._streak == STREAK:
            target = "daemon"
        if target == "codex":
            self._world.codex_runs()
        if target in ("codex", "both"):
            self._world.kill_codex()
        self._streak = self._streak + 1 if target == "codex" else 0
        self.kills[target] += 1
        if target != "codex":
            self._world.kill_daemon()
            self._world.start()


def storm(messages: Messages, random: Random, *, lanes: int, count: int, kills: int) -> Killer:
    """Send messages to some lanes while things die, evenly over the progress, and return once everything is settled."""
    world = messages.world
    refs = messages.lanes(lanes)
    plan = [(random.choice(refs), {"delay": random.uniform(0, 0.08)}) for _ in range(count)]
    shares = [[(lane, how) for lane, how in plan if lane == ref] for ref in refs]
    killer = Killer(world, random)
    with ThreadPoolExecutor(lanes) as clients:
        sent = [
            clients.submit(messages.send_all, [(lane, how, messages.marker()) for lane, how in s])
            for s in shares
        ]

        def have_begun(due: int) -> bool:
            for client in sent:
                if client.done():
                    client.result()  # what ended it, should it have failed
            return messages.begun() >= due

        for n in range(kills):
            due = count * n // kills
            until(partial(have_begun, due), f"{due} messages were sent")
            time.sleep(random.uniform(0, 0.06))  # the fault's own moment; nothing is awaited
            killer.kill()
        for future in sent:
            future.result(PATIENCE * 2)
    messages.settle()
    return killer
