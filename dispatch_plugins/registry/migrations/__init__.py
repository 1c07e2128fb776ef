"""Numbered migrations of the registry. Each is frozen once released; SCHEMA_VERSION is the number of the last one."""
