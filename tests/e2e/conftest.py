"""One daemon that several tests share, for what does not end it or depend on an empty registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dispatch_core.testing.daemon import Dispatch, temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def shared() -> Iterator[Dispatch]:
    with temporary_home() as dispatch:
        dispatch.json("up")
        yield dispatch
