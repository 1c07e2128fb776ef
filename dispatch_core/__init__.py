"""The dispatch kernel: hooks, contracts, engine, Codex client, control socket, daemon. It imports no plugin."""

__version__ = "0.1.0"
