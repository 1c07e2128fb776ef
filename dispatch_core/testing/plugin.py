"""The pytest plugin: fixtures for testing dispatch plugins against a real, offline daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatch_core.testing.daemon import Dispatch


@pytest.fixture
def dispatch() -> Iterator[Dispatch]:
    """The ``dispatch`` command over a fresh home; the daemon starts, offline, with the first command that needs it."""
    # Imported here: this module is loaded in every pytest run of an environment that has dispatch.
    from dispatch_core.testing.daemon import temporary_home  # noqa: PLC0415

    with temporary_home() as found:
        yield found
