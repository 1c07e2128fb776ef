"""The table of faults: what is done to dispatch, and what must hold then. A test names its rows with ``@pytest.mark.fault``.

D: deliveries. S: storage. K: the control socket. A: the app-server.
"""

from __future__ import annotations

# Row: (the fault, what must hold)
ROWS: dict[str, tuple[str, str]] = {
    "D1": (
        "daemon, app-server or both killed at random moments",
        "nothing lost, nothing in two turns, order kept in every thread, nothing unknown",
    ),
    "D2": ("each of them killed at every failpoint", "as D1"),
    "D3": (
        "app-server killed when the model is asked",
        "the turn is found in history and never sent again",
    ),
    "D4": (
        "power cut, for the registry and for Codex",
        "what was accepted is there; what cannot be proven is unknown; nothing runs twice",
    ),
    "D5": (
        "deliveries sent again after every restart, as a contrast",
        "the checker finds them twice",
    ),
    "D6": (
        "one idempotency key from many clients at once, the daemon killed meanwhile",
        "one delivery, one turn, the same receipt for all",
    ),
    "D7": (
        "a message that ends the app-server whenever it is sent",
        "dead after three, and the next one is sent",
    ),
    "D8": (
        "messages for a thread that works, or waits for an approval",
        "a turn for each, none merged into another",
    ),
    "D9": (
        "daemon asked to end while a message is handed over",
        "no delivery is left on its way without an explanation",
    ),
    "D10": (
        "history damaged while messages are on their way",
        "unknown and never sent again; other threads go on",
    ),
    "D11": ("machine restarted while messages are on their way", "unknown, none sent again"),
    "D12": ("a backlog over many threads", "claims stay fast, memory stays bounded"),
    "S1": (
        "registry locked by another process",
        "waits, then a typed error; the daemon goes on answering",
    ),
    "S2": (
        "disk full",
        "messages are refused, what was accepted goes on; it recovers by itself",
    ),
    "S3": (
        "error of the disk, or read-only while it runs",
        "nothing is acknowledged after a sync that failed",
    ),
    "S4": (
        "registry damaged, emptied, exchanged or deleted",
        "a named error with the way to restore; never a new registry in silence",
    ),
    "S5": (
        "registry of a newer, an older, an unknown version",
        "refused, migrated, refused",
    ),
    "S6": ("migration killed at every statement", "the old version or the new one, and a backup"),
    "S7": ("a reader that never ends", "it is ended; the log of SQLite stays bounded"),
    "S8": ("two daemons on one registry", "the second one is refused; nothing is claimed twice"),
    "S9": ("backup while messages are accepted, and restored", "the copy is whole"),
    "K1": ("many starts at once over a stale socket", "exactly one daemon"),
    "K2": (
        "foreign, linked, open or otherwise wrong paths",
        "refused with the reason; nothing deleted",
    ),
    "K3": ("another user connects", "refused by the mode and by the peer's user, each alone"),
    "K4": ("many clients, idle and active", "served, or refused with a typed error"),
    "K5": ("no descriptors left", "clients keep their connection; new ones are accepted again"),
    "K6": ("clients that send slowly or nothing", "closed in time; others do not notice"),
    "K7": ("frames that are too long, or never end", "discarded with an error; memory bounded"),
    "K8": ("frames that are not what they should be", "a typed error; no crash, no hang"),
    "K9": ("client dies in a call or a stream", "nothing is left behind, nothing half-done"),
    "K10": ("subscriber that stops reading", "it learns of the gap; others lose nothing"),
    "K11": ("slow subscriber comes back with its cursor", "no gap, no repetition"),
    "A1": (
        "app-server ends, crashes, is killed, does not start",
        "started again with growing pauses, or degraded with the reason",
    ),
    "A2": (
        "app-server stopped for a while, for long, and with the daemon",
        "nothing; killed and reconciled; nothing",
    ),
    "A3": ("malformed, partial and huge lines from Codex", "a line is lost, no thread"),
    "A4": (
        "unknown notifications, requests, values and fields from Codex",
        "recorded; unknown requests answered with an error",
    ),
    "A5": (
        "answers out of order, twice, late, to nobody",
        "each reaches who asked, or is dropped",
    ),
    "A6": ("answers that never come, or after it was given up", "found out from history"),
    "A7": ("Codex overloaded", "sent again with growing pauses until all are delivered"),
    "A8": (
        "approvals unanswered, answered twice, malformed, orphaned, by the wrong thread",
        "declined at the deadline; no command runs",
    ),
    "A9": ("another process holds the thread", "it waits and says so; nothing is lost"),
    "A10": ("every supported version of Codex", "proven, or what is in doubt is never sent again"),
    "A11": ("app-server writes without end", "memory bounded"),
    "A12": ("restart of daemon and app-server", "sandbox and approvals as before"),
}

# Row: why no test of this repository can prove it
NOT_HERE: dict[str, str] = {}
