"""What every test may use. Async tests run on asyncio, the backend the daemon uses."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
