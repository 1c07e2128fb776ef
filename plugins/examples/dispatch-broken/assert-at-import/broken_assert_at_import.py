"""Checks something while it is imported, and it does not hold."""

assert 1 + 1 == 3, "arithmetic is not what it was"
