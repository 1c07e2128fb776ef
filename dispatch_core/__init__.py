"""The dispatch kernel: hooks, contracts, engine, Codex client, control socket, daemon. It imports no plugin."""
