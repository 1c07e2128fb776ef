"""What every test may use. Async tests run on asyncio, the backend the daemon uses."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A property has no time limit: how fast this machine is, is not a property.
settings.register_profile("dispatch", deadline=None)
settings.load_profile("dispatch")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
