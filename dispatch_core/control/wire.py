"""The frames of the control protocol: one strict JSON object on one line, for both ends.

Standard library only: the fast path of the CLI imports it.
"""

from __future__ import annotations

from dispatch_core import lean_json
from dispatch_core.errors import DispatchError, ProtocolViolation

TYPE_CHECKING = False  # typing costs more than everything else in this module
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, ClassVar, Final, NoReturn

PROTOCOL: Final = 1
MAX_FRAME: Final = 8 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_MEMBERS: Final = 10_000
MAX_MARKS: Final = 100_000
MAX_DIGITS: Final = 4_300
MAX_ID: Final = 64
MAX_METHOD: Final = 128
VIEW_WIDTHS: Final = range(20, 1001)
REQUEST_MEMBERS: Final = frozenset({"id", "method", "params", "schema", "view"})

RequestId = int | str


class Oversized:
    """What stands in the stream of lines where one was larger than the limit."""

    __slots__ = ()


OVERSIZED: Final = Oversized()


class _Value:
    """Base of what is compared by its fields; NamedTuple and dataclass cost a command more than all of this module."""

    __slots__: tuple[str, ...] = ()
    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        names = self.__slots__
        return type(other) is type(self) and all(
            getattr(self, name) == getattr(other, name) for name in names
        )

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class Request(_Value):
    """A request whose envelope is valid; params are still as the client wrote them."""

    __slots__ = ("id", "method", "params", "schema", "view")

    def __init__(
        self,
        id: RequestId,  # noqa: A002 -- the name on the wire
        method: str,
        params: dict[str, Any],
        schema: str | None = None,
        view: dict[str, Any] | None = None,
    ) -> None:
        self.id = id
        self.method = method
        self.params = params
        self.schema = schema
        self.view = view


class Reply(_Value):
    """What a request was answered with: the result and, when a view was asked for, its text for people."""

    __slots__ = ("result", "text")

    def __init__(self, result: dict[str, Any], text: str | None = None) -> None:
        self.result = result
        self.text = text


class Notification(_Value):
    """One line of a subscription. cursor: where to resume after it. event: None where events are missing before the next one."""

    __slots__ = ("cursor", "event", "subscription")

    def __init__(self, subscription: int, cursor: str, event: dict[str, Any] | None) -> None:
        self.subscription = subscription
        self.cursor = cursor
        self.event = event


class FrameSplitter:
    """Bytes in, lines out; it never holds more than one frame and the piece that was fed last."""

    __slots__ = ("_at", "_data", "_discarding", "_limit", "_pending")

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._data = b""
        self._at = 0
        self._discarding = False

    def feed(self, data: bytes) -> Iterator[bytes | Oversized]:
        """Yield the lines that data completes, without their newline, and OVERSIZED as soon as one is too large.

        The rest of an oversized line is discarded. Exhaust the iterator before feeding again, or take ``rest``.
        """
        self._data = data
        self._at = 0
        while (end := self._data.find(b"\n", self._at)) >= 0:
            piece = self._data[self._at : end]
            self._at = end + 1
            if self._discarding:
                self._discarding = False
            elif len(self._pending) + len(piece) >= self._limit:
                self._pending = bytearray()
                yield OVERSIZED
            elif self._pending:
                self._pending += piece
                line = bytes(self._pending)
                self._pending = bytearray()
                yield line
            else:
                yield piece
        tail = self._data[self._at :]
        self._data = b""
        if self._discarding:
            return
        if len(self._pending) + len(tail) < self._limit:
            self._pending += tail
            return
        self._pending = bytearray()
        self._discarding = True
        yield OVERSIZED

    def rest(self) -> bytes:
        """Return what was fed and is not part of a line that was yielded, and forget it."""
        rest = bytes(self._pending) + self._data[self._at :]
        self._pending = bytearray()
        self._data = b""
        return rest


def encode(obj: Mapping[str, Any]) -> bytes:
    """Return the frame of a JSON object, with its newline.

    Raises ProtocolViolation for what JSON or UTF-8 cannot say: NaN, infinity, lone surrogates, other types. Any size is fine.
    """
    try:
        return lean_json.dumps(obj).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ProtocolViolation(f"this cannot be written as a frame: {error}") from error


def decode(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line that keeps every limit of the protocol. Raises ProtocolViolation."""
    # Counting characters is a hundred times cheaper than a walk, and nearly every frame stays below the limits by it.
    opened = line.count(b"{") + line.count(b"[")
    if opened + line.count(b",") > MAX_MARKS or line.count(b":") > MAX_MEMBERS:
        _check_marks(line)
    frame = decode_reply(line)
    if opened > MAX_DEPTH:
        _check_depth(frame)
    return frame


def decode_reply(line: bytes) -> dict[str, Any]:
    """Return the JSON object of a line from the daemon, which may be deeper and have more members than a request.

    Raises ProtocolViolation.
    """
    try:
        frame = _decode(line.decode())
    except ProtocolViolation:
        raise
    except UnicodeDecodeError as error:
        raise ProtocolViolation(
            f"the frame is not UTF-8: {error.reason} at byte {error.start}"
        ) from error
    except ValueError as error:
        raise ProtocolViolation(f"the frame is not JSON: {error}") from error
    except SystemError as error:
        # The C half of Python 3.11's json cannot make its exception in a process that has not imported json.
        raise ProtocolViolation("the frame is not JSON") from error
    except RecursionError as error:
        raise ProtocolViolation(f"the frame is nested deeper than {MAX_DEPTH} levels") from error
    if type(frame) is not dict:
        raise ProtocolViolation("the frame is not a JSON object")
    if b"\\u" in line and (b"\\ud" in line or b"\\uD" in line):
        _check_surrogates(frame)
    return frame


def parse_request(frame: Mapping[str, Any]) -> Request:
    """Return the request a frame holds. Raises ProtocolViolation naming the member that is wrong."""
    unknown = frame.keys() - REQUEST_MEMBERS
    if unknown:
        raise ProtocolViolation(f"a request has no member {min(unknown)!r}")
    for name in ("id", "method"):
        if name not in frame:
            raise ProtocolViolation(f"the request has no {name!r}")
    request_id = valid_id(frame)
    if request_id is None:
        raise ProtocolViolation(
            f"'id' must be an integer or a printable string, at most {MAX_ID} characters"
        )
    method = frame["method"]
    if not printable(method, MAX_METHOD):
        raise ProtocolViolation(
            f"'method' must be a printable string of 1 to {MAX_METHOD} characters"
        )
    params = frame.get("params", {})
    if type(params) is not dict:
        raise ProtocolViolation("'params' must be an object")
    schema = frame.get("schema")
    if "schema" in frame and type(schema) is not str:
        raise ProtocolViolation("'schema' must be a string")
    return Request(request_id, method, params, schema, _view(frame) if "view" in frame else None)


def valid_id(frame: Mapping[str, Any]) -> RequestId | None:
    """Return the id of a request if it may be used in a reply, or None."""
    request_id = frame.get("id")
    if type(request_id) is int:
        return request_id if abs(request_id) < 10**MAX_ID else None
    if type(request_id) is str and len(request_id) <= MAX_ID and request_id.isprintable():
        return request_id
    return None


def printable(value: object, limit: int) -> bool:
    """Say whether a value is a string of 1 to limit printable characters, fit for a log line."""
    return type(value) is str and 0 < len(value) <= limit and value.isprintable()


def request_frame(
    request_id: RequestId,
    method: str,
    params: Mapping[str, Any],
    *,
    schema: str | None = None,
    view: Mapping[str, Any] | None = None,
) -> bytes:
    """Return the frame of a request. Raises ProtocolViolation if it cannot be written or the daemon would refuse its size."""
    frame: dict[str, Any] = {"id": request_id, "method": method, "params": params}
    if schema is not None:
        frame["schema"] = schema
    if view is not None:
        frame["view"] = view
    line = encode(frame)
    if len(line) > MAX_FRAME:
        raise ProtocolViolation(
            f"the request {method} is {len(line)} bytes, and a frame is at most {MAX_FRAME}",
            hint="send less at once",
        )
    return line


def result_frame(
    request_id: RequestId, result: Mapping[str, Any], text: str | None = None
) -> bytes:
    """Return the frame of an answer. Raises ProtocolViolation if it cannot be written or is too large to be sent."""
    frame: dict[str, Any] = {"id": request_id, "result": result}
    if text is not None:
        frame["text"] = text
    line = encode(frame)
    if len(line) > MAX_FRAME:
        raise ProtocolViolation(
            f"the result is {len(line)} bytes, and a frame is at most {MAX_FRAME}",
            hint="ask for less at once, for example with a smaller --limit",
        )
    return line


def error_frame(request_id: RequestId | None, error: DispatchError) -> bytes:
    """Return the frame of an error, whatever its details are."""
    data = error.to_dict()
    try:
        line = _error_line(request_id, error, data)
    except ProtocolViolation:
        line = b""
    if not line or len(line) > MAX_FRAME:
        # A plugin's own error may carry what JSON cannot say, or too much; its code and the start of its message always fit.
        message = error.message[:1000].encode(errors="replace").decode()
        line = _error_line(
            request_id, error, {**data, "message": message, "hint": None, "details": {}}
        )
    return line


def notification_frame(notification: Notification) -> bytes:
    """Return the frame of one event, or of a gap. Raises ProtocolViolation if it cannot be written."""
    params: dict[str, Any] = {
        "subscription": notification.subscription,
        "cursor": notification.cursor,
    }
    if notification.event is None:
        return encode({"method": "$gap", "params": params})
    return encode({"method": "$event", "params": {**params, "event": notification.event}})


def parse_notification(frame: Mapping[str, Any]) -> Notification:
    """Return the notification that a frame without an id holds. Raises ProtocolViolation."""
    params = frame.get("params")
    method = frame.get("method")
    try:
        if method not in ("$event", "$gap") or type(params) is not dict:
            raise ProtocolViolation(
                f"the daemon sent a frame that is neither a reply nor an event: {method!r}"
            )
        return Notification(
            params["subscription"],
            params["cursor"],
            params["event"] if method == "$event" else None,
        )
    except KeyError as error:
        raise ProtocolViolation(f"the daemon sent an event without {error}") from error


def _error_line(request_id: RequestId | None, error: DispatchError, data: dict[str, Any]) -> bytes:
    code = error.projection.rpc_code
    return encode(
        {"id": request_id, "error": {"code": code, "message": data["message"], "data": data}}
    )


def _view(frame: Mapping[str, Any]) -> dict[str, Any]:
    view = frame["view"]
    if type(view) is not dict or view.keys() - {"text_only"} != {"width", "color"}:
        raise ProtocolViolation(
            "'view' must be an object with 'width' and 'color', and perhaps 'text_only'"
        )
    if type(view["width"]) is not int or view["width"] not in VIEW_WIDTHS:
        raise ProtocolViolation(
            f"'view.width' must be an integer from {VIEW_WIDTHS[0]} to {VIEW_WIDTHS[-1]}"
        )
    for name in view.keys() - {"width"}:
        if type(view[name]) is not bool:
            raise ProtocolViolation(f"'view.{name}' must be true or false")
    return view


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in members if names.count(name) > 1)
        raise ProtocolViolation(f"the frame has the member {twice[:MAX_ID]!r} twice in one object")
    return members


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise ProtocolViolation(f"the frame has an integer of more than {MAX_DIGITS} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ProtocolViolation("the frame has a number that is too large")
    return value


def _constant(name: str) -> NoReturn:
    raise ProtocolViolation(f"the frame has {name}, which is not JSON")


def _check_marks(line: bytes) -> None:
    """Return if the line has not too many values. It looks before they are made, for they can take thirty times the memory."""
    bare = line.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 2 * (MAX_MARKS + MAX_MEMBERS):
        raise _too_many_marks()
    outside = b"".join(bare.split(b'"')[::2])
    if outside.count(b":") > MAX_MEMBERS:
        raise ProtocolViolation(f"the frame has more than {MAX_MEMBERS} object members")
    if outside.count(b"{") + outside.count(b"[") + outside.count(b",") > MAX_MARKS:
        raise _too_many_marks()


def _too_many_marks() -> ProtocolViolation:
    return ProtocolViolation(f"the frame has more than {MAX_MARKS} commas and opening brackets")


def _check_depth(frame: dict[str, Any]) -> None:
    level: list[Any] = [frame]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for value in level:
            deeper += value.values() if type(value) is dict else value
        level = [value for value in deeper if type(value) in (dict, list)]
        if not level:
            return
    raise ProtocolViolation(f"the frame is nested deeper than {MAX_DEPTH} levels")


def _check_surrogates(frame: dict[str, Any]) -> None:
    try:
        lean_json.dumps(frame).encode()
    except UnicodeEncodeError as error:
        raise ProtocolViolation("the frame has a lone surrogate in a string") from error


_decode: Final = lean_json.decoder(
    object_pairs_hook=_members, parse_float=_float, parse_int=_integer, parse_constant=_constant
)
