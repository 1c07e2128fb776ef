"""Pages out of other people's pages: nothing is lost at their borders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatch_core.errors import ValidationFailed
from dispatch_plugins.ops.shared.paging import START, Feed, Place, Row, from_cursor, to_cursor

pytestmark = pytest.mark.anyio


def source(rows, size):
    """Return a fetch over rows in pages of a size; every row in ``None`` is left out by a filter."""

    async def fetch(cursor):
        start = int(cursor or 0)
        page = rows[start : start + size]
        found = [Row(str(row), float(row), row) for row in page if row is not None]
        following = start + size
        return found, str(following) if following < len(rows) else None

    return fetch


async def read_all(fetch, limit, patience):
    """Return the rows of every page, each page made anew from the cursor of the one before."""
    rows, cursor = [], None
    for _ in range(1000):
        feed = Feed(fetch, from_cursor(cursor, 1, ["f"])["f"], patience=patience)
        taken = 0
        while taken < limit and await feed.head() is not None:
            rows.append(feed.take().value)
            taken += 1
        cursor = to_cursor(1, {"f": feed.place})
        if cursor is None:
            return rows
    raise AssertionError("the pages do not end")


@given(
    st.lists(st.booleans(), max_size=40), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3)
)
async def test_every_row_is_read_once_whatever_the_borders(kept, size, limit, patience):
    rows = [number if keep else None for number, keep in enumerate(kept)]

    found = await read_all(source(rows, size), limit, patience)

    assert found == [row for row in rows if row is not None]


async def test_a_feed_that_ran_out_of_patience_is_not_at_its_end():
    feed = Feed(source([None] * 6 + [7], 1), START, patience=3)

    assert await feed.head() is None
    assert (feed.paused, feed.place) == (True, Place("3"))


@given(
    st.dictionaries(st.sampled_from("abc"), st.sampled_from([None, START, Place("p", "i", -1.5)]))
)
async def test_a_cursor_holds_every_place(places):
    cursor = to_cursor(3, places)

    expected = {name: places.get(name) for name in "abc"}
    if cursor is None:
        assert not any(expected.values())
    else:
        assert from_cursor(cursor, 3, "abc") == expected


@pytest.mark.parametrize("cursor", ["", "!", "e30", "W10", "WzEsIDJd", "WzEsIHsiZiI6IFsxXX1d"])
async def test_what_is_no_cursor_is_refused(cursor):
    with pytest.raises(ValidationFailed):
        from_cursor(cursor, 1, ["f"])
