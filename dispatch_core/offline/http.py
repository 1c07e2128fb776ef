"""A small strict HTTP/1.1 for loopback clients; nothing that a peer sends grows without bound."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from anyio import BrokenResourceError, EndOfStream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anyio.abc import ByteStream

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 128 * 1024 * 1024
READ_SIZE = 64 * 1024

_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.([01])")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(r"[0-9]{1,12}")


class BadRequestError(Exception):
    """The peer did not send the HTTP understood here; the connection ends after the reply."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read to its end.

    path: without the query. keep_alive: whether another request may follow.
    """

    method: str
    path: str
    body: bytes
    keep_alive: bool

    def json(self) -> dict[str, Any]:
        """Return the JSON object in the body. Raises BadRequestError if there is none."""
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(400, f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise BadRequestError(400, "the body is not a JSON object")
        return value


class Connection:
    """One peer: whole requests in, replies out.

    Every method raises BrokenResourceError when the peer is gone in the middle of something.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def read_request(self) -> Request | None:
        """Return the next request, or None when the peer closed between requests.

        Raises BadRequestError.
        """
        head = await self._read_head()
        if head is None:
            return None
        method, path, version, headers = _parse_head(head)
        length = _body_length(method, headers)
        if headers.get("expect", "").lower() == "100-continue" and len(self._buffer) < length:
            await self._stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await self._read_exactly(length)
        keep_alive = version == "1" and headers.get("connection", "").lower() != "close"
        return Request(method, path, body, keep_alive)

    async def wait_closed(self) -> None:
        """Return once the peer has closed its side.

        Bytes that arrive meanwhile are kept for the next request; past HEAD_LIMIT the peer counts
        as gone.
        """
        while len(self._buffer) <= HEAD_LIMIT:
            if not await self._receive():
                return

    async def send_json(
        self, status: int, value: object, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send one whole reply with a JSON body."""
        body = json.dumps(value).encode()
        fields = {
            **(headers or {}),
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        await self._stream.send(_head(status, fields) + body)

    async def begin_events(self, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of an event stream; send_events and end_events follow."""
        fields = {
            **(headers or {}),
            "Content-Type": "text/event-stream",
            "Transfer-Encoding": "chunked",
        }
        await self._stream.send(_head(200, fields))

    async def send_events(self, data: bytes) -> None:
        """Send one or more encoded events as one chunk."""
        if data:  # an empty chunk would end the stream
            await self._stream.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def end_events(self) -> None:
        """End the event stream properly; the connection can then carry another request."""
        await self._stream.send(b"0\r\n\r\n")

    async def _read_head(self) -> str | None:
        searched = 0
        while (end := self._buffer.find(b"\r\n\r\n", max(0, searched - 3))) < 0:
            searched = len(self._buffer)
            if searched > HEAD_LIMIT:
                raise BadRequestError(431, f"the head is longer than {HEAD_LIMIT} bytes")
            if not await self._receive():
                if self._buffer:
                    raise BrokenResourceError
                return None
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        return head.decode("latin-1")

    async def _read_exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            if not await self._receive():
                raise BrokenResourceError
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    async def _receive(self) -> bool:
        try:
            self._buffer += await self._stream.receive(READ_SIZE)
        except EndOfStream:
            return False
        return True


def _parse_head(head: str) -> tuple[str, str, str, dict[str, str]]:
    first, *lines = head.split("\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise BadRequestError(400, "the request line is not METHOD /path HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequestError(400, "a header line is not of the form name: value")
        if name.lower() == "content-length" and "content-length" in headers:
            raise BadRequestError(400, "Content-Length appears twice")
        headers[name.lower()] = value.strip()
    method, target, version = match.groups()
    return method, target.partition("?")[0], version, headers


def _body_length(method: str, headers: Mapping[str, str]) -> int:
    if "transfer-encoding" in headers:
        raise BadRequestError(501, "request bodies with Transfer-Encoding are not supported")
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise BadRequestError(415, "compressed request bodies are not supported")
    if "content-length" not in headers:
        if method == "POST":
            raise BadRequestError(411, "a POST needs Content-Length")
        return 0
    if not _LENGTH.fullmatch(headers["content-length"]):
        raise BadRequestError(400, "Content-Length is not a number")
    length = int(headers["content-length"])
    if length > BODY_LIMIT:
        raise BadRequestError(413, f"the body is longer than {BODY_LIMIT} bytes")
    return length


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Scripted"
    lines = [
        f"HTTP/1.1 {status} {reason}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
