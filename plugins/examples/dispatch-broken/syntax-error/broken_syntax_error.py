"""Half a function."""


def dispatch_ops(settings:
