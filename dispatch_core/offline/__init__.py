"""A language model that needs no network, and the Codex home that talks to it."""
