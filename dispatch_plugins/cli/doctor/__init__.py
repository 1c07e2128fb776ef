"""``dispatch doctor``: what works, what does not, and the next command for each.

It starts no daemon and loads no third-party plugin.
"""
