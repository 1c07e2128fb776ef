"""The only code that knows the JSONL protocol of ``codex app-server``."""
