"""The process that owns one Codex app-server, the registry and the control socket."""
