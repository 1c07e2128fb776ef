"""Requests of Codex."""
# ruff: noqa: S101 -- these are tests; pytest reports an assert best

from __future__ import annotations

from dataclasses import replace

import pytest
from anyio import create_task_group, fail_after

from dispatch_core.api import (
    RequestFilter,
    RequestRecord,
    RequestState,
    Storage,
)
from dispatch_core.testing.storage.samples import (
    LATER,
    PATIENCE,
    START,
    a_request,
)


class Requests:
    """What every backend does with them."""

    # Requests of Codex.

    async def test_a_request_is_stored_as_it_is(self, storage: Storage) -> None:
        plain, full = a_request(1), a_request(2, cut=True, item_id="i", rpc_id='"2"', turn_id=None)

        added = [await storage.requests.add(request) for request in (plain, full)]

        assert added == [plain, full]
        assert await storage.requests.get(plain.id) == plain
        assert await storage.requests.get(full.id) == full
        assert await storage.requests.get("request-0003") is None

    async def test_a_request_that_is_repeated_is_the_first_one(self, storage: Storage) -> None:
        first = await storage.requests.add(a_request(1))
        await storage.requests.claim(first.id, by="human", decision="accept", at=LATER)

        again = await storage.requests.add(replace(a_request(2), rpc_id=first.rpc_id))

        assert (again.id, again.state) == (first.id, RequestState.ANSWERING)
        assert await storage.requests.get("request-0002") is None

    async def test_a_number_and_a_text_are_two_ids_and_so_are_two_epochs(
        self, storage: Storage
    ) -> None:
        same = [
            a_request(1, rpc_id="7"),
            a_request(2, rpc_id='"7"'),
            a_request(3, rpc_id="7", epoch="epoch-2"),
        ]

        added = [await storage.requests.add(request) for request in same]

        assert added == same

    async def test_requests_are_found_by_both_ends_of_their_id(self, storage: Storage) -> None:
        ids = ("0190-aaaa-1111", "0190-bbbb-2222", "0191-aaaa-2222")
        for number, request_id in enumerate(ids):
            await storage.requests.add(a_request(number, id=request_id))

        async def found(part: str, limit: int = 9) -> list[str]:
            return [request.id for request in await storage.requests.find(part, limit)]

        assert await found("0190-") == [ids[0], ids[1]]
        assert await found("2222") == [ids[1], ids[2]]
        assert await found(ids[2]) == [ids[2]]
        assert await found("0190-", 1) == [ids[0]]
        assert await found("%") == await found("_") == []

    async def test_requests_are_listed_with_the_latest_deadline_first_and_page_by_page(
        self, storage: Storage
    ) -> None:
        requests = [a_request(number, thread=f"t{number % 2}") for number in range(1, 6)]
        requests.append(a_request(6, deadline=requests[4].deadline, thread="t1"))
        for request in requests:
            await storage.requests.add(request)

        every = await storage.requests.list(RequestFilter(), 10)
        rest = await storage.requests.list(RequestFilter(), 10, after=every[1])

        assert [request.rpc_id for request in every] == ["6", "5", "4", "3", "2", "1"]
        assert (rest, await storage.requests.list(RequestFilter(), 2)) == (every[2:], every[:2])
        of_thread = await storage.requests.list(RequestFilter(thread="t0"), 10)
        assert [request.rpc_id for request in of_thread] == ["4", "2"]
        assert await storage.requests.list(RequestFilter(), 0) == ()

    async def test_requests_are_listed_by_their_states(self, storage: Storage) -> None:
        for number in (1, 2, 3):
            await storage.requests.add(a_request(number))
        await storage.requests.claim("request-0002", by="human", decision="accept", at=LATER)
        await storage.requests.close("request-0003", RequestState.EXPIRED, at=LATER)

        async def listed(*states: RequestState) -> list[str]:
            wanted = RequestFilter(states=frozenset(states))
            return [request.rpc_id for request in await storage.requests.list(wanted, 9)]

        assert await listed(RequestState.OPEN) == ["1"]
        assert await listed(RequestState.OPEN, RequestState.EXPIRED) == ["3", "1"]
        assert await listed(RequestState.ORPHANED) == []

    async def test_an_open_request_is_claimed_once(self, storage: Storage) -> None:
        request = await storage.requests.add(a_request())

        claimed = await storage.requests.claim(request.id, by="human", decision="accept", at=LATER)
        again = await storage.requests.claim(
            request.id, by="deadline", decision="decline", at=LATER
        )

        assert claimed == replace(
            request,
            state=RequestState.ANSWERING,
            answered_by="human",
            decision="accept",
            answered_at=LATER,
        )
        assert again is None
        assert await storage.requests.get(request.id) == claimed
        assert await storage.requests.claim("nobody", by="x", decision="accept", at=LATER) is None

    async def test_one_of_many_claims_of_one_request_wins(self, storage: Storage) -> None:
        request = await storage.requests.add(a_request())
        won: list[RequestRecord] = []

        async def claim(number: int) -> None:
            found = await storage.requests.claim(
                request.id, by=str(number), decision="accept", at=LATER
            )
            won.extend([found] if found else [])

        with fail_after(PATIENCE):
            async with create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(claim, number)

        assert won == [await storage.requests.get(request.id)]

    async def test_only_an_open_request_is_deferred(self, storage: Storage) -> None:
        request = await storage.requests.add(a_request())

        deferred = await storage.requests.defer(request.id, LATER)
        await storage.requests.claim(request.id, by="human", decision="accept", at=LATER)

        assert deferred == replace(request, deadline=LATER)
        assert await storage.requests.defer(request.id, START) is None
        assert await storage.requests.defer("nobody", START) is None

    async def test_a_closed_request_keeps_its_answer_and_not_its_body(
        self, storage: Storage
    ) -> None:
        request = await storage.requests.add(a_request())
        await storage.requests.claim(request.id, by="human", decision="accept", at=START)

        closed = await storage.requests.close(
            request.id, RequestState.CANCELLED, at=LATER, detail="the turn ended"
        )
        again = await storage.requests.close(request.id, RequestState.ANSWERED, at=LATER)

        assert closed is not None
        assert (closed.body, closed.state, closed.closed_at) == (None, "cancelled", LATER)
        assert (closed.answered_by, closed.decision, closed.detail) == (
            "human",
            "accept",
            "the turn ended",
        )
        assert again is None
        assert await storage.requests.get(request.id) == closed

    async def test_an_open_request_can_be_closed_with_its_answer(self, storage: Storage) -> None:
        request = await storage.requests.add(a_request())

        closed = await storage.requests.close(
            request.id, RequestState.EXPIRED, at=LATER, by="deadline", decision="decline"
        )

        assert closed is not None
        assert (closed.answered_by, closed.decision) == ("deadline", "decline")

    async def test_what_other_epochs_left_open_is_orphaned(self, storage: Storage) -> None:
        for number in (1, 2, 3, 4):
            epoch = "new" if number == 4 else "old"
            await storage.requests.add(a_request(number, epoch=epoch))
        await storage.requests.claim("request-0002", by="human", decision="accept", at=START)
        await storage.requests.close("request-0003", RequestState.ANSWERED, at=START)

        orphaned = await storage.requests.orphan(epoch="new", at=LATER, detail="gone")

        assert [request.rpc_id for request in orphaned] == ["1", "2"]
        assert orphaned == tuple([await storage.requests.get(request.id) for request in orphaned])
        assert {request.state for request in orphaned} == {RequestState.ORPHANED}
        assert [request.answered_by for request in orphaned] == [None, "human"]
        assert len(await storage.requests.orphan(epoch=None, at=LATER, detail="gone")) == 1

    async def test_requests_are_forgotten_after_their_time_and_not_before(
        self, storage: Storage
    ) -> None:
        for number in (1, 2, 3):
            await storage.requests.add(a_request(number))
        await storage.requests.close("request-0001", RequestState.ANSWERED, at=START)
        await storage.requests.close("request-0002", RequestState.ANSWERED, at=LATER)

        forgotten = await storage.requests.forget(LATER)

        left = await storage.requests.list(RequestFilter(), 9)
        assert (forgotten, [request.rpc_id for request in left]) == (1, ["3", "2"])

    async def test_a_body_that_is_no_json_is_refused(self, storage: Storage) -> None:
        with pytest.raises((TypeError, ValueError)):
            await storage.requests.add(a_request(body={"when": START}))

        assert await storage.requests.list(RequestFilter(), 9) == ()
