"""Commands that are no ops, for they must work without a daemon: one module each, listed in ``names.NATIVE``."""
