"""The registry: everything dispatch remembers, in SQLite through Peewee."""
