"""The inbox: what Codex asks is recorded, then answered once, by a person, by a rule of the user's or by its deadline."""
