"""What every test may use. Async tests run on asyncio, the backend the daemon uses."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

# A property has no time limit: how fast this machine is, is not a property.
settings.register_profile("dispatch", deadline=None)
settings.load_profile("dispatch")

# A shell starts what runs in the background with interrupts ignored, and every process below inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
