"""The parameters of the control methods: what a client may write, turned into values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatch_core.contracts.caller import Caller
from dispatch_core.control import wire
from dispatch_core.errors import DaemonStale, ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_GRACE = 86_400


def parse_hello(params: Mapping[str, Any]) -> Caller:
    """Return who the client is. Raises DaemonStale for another protocol before it looks at anything else."""
    protocol = params.get("protocol")
    if type(protocol) is not int:
        raise ProtocolViolation("$hello: 'protocol' must be an integer")
    if protocol != wire.PROTOCOL:
        raise DaemonStale(
            f"the daemon speaks protocol {wire.PROTOCOL} and the client protocol {protocol}",
            hint="dispatch down, then dispatch up with the same installation",
            details={"daemon": wire.PROTOCOL, "client": protocol},
        )
    only(
        params,
        "$hello",
        required=("protocol", "client", "version"),
        optional=("manifest", "thread_id"),
    )
    for name, limit in (("client", 64), ("version", 64), ("manifest", 128), ("thread_id", 128)):
        value = params.get(name)
        if value is None and name in ("manifest", "thread_id"):
            continue
        if not wire.printable(value, limit):
            raise ProtocolViolation(
                f"$hello: {name!r} must be a printable string of 1 to {limit} characters"
            )
    thread_id = params.get("thread_id")
    principal = "human" if thread_id is None else f"agent:{thread_id}"
    return Caller(principal=principal, surface=params["client"], thread_id=thread_id)


def parse_cancel(params: Mapping[str, Any]) -> wire.RequestId:
    """Return the id of the request to cancel. Raises ProtocolViolation."""
    only(params, "$cancel", required=("id",))
    target = wire.valid_id(params)
    if target is None:
        raise ProtocolViolation("$cancel: 'id' must be the id of a request")
    return target


def parse_unsubscribe(params: Mapping[str, Any]) -> int:
    """Return the number of the subscription to end. Raises ProtocolViolation."""
    only(params, "$unsubscribe", required=("subscription",))
    number = params["subscription"]
    if type(number) is not int:
        raise ProtocolViolation("$unsubscribe: 'subscription' must be an integer")
    return number


def parse_shutdown(params: Mapping[str, Any]) -> float | None:
    """Return the seconds that running turns get, or None for the configured time. Raises ProtocolViolation."""
    only(params, "$shutdown", optional=("grace",))
    grace = params.get("grace")
    if grace is None:
        return None
    if type(grace) not in (int, float) or not 0 <= grace <= MAX_GRACE:
        raise ProtocolViolation(
            f"$shutdown: 'grace' must be seconds from 0 to {MAX_GRACE}, or null"
        )
    return float(grace)


def parse_open(params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the surface to open and its options. Raises ProtocolViolation."""
    only(params, "$open", required=("surface",), optional=("options",))
    surface, options = params["surface"], params.get("options", {})
    if not wire.printable(surface, 64):
        raise ProtocolViolation("$open: 'surface' must be the name of a surface")
    if type(options) is not dict:
        raise ProtocolViolation("$open: 'options' must be an object")
    return surface, options


def only(
    params: Mapping[str, Any],
    method: str,
    *,
    required: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> None:
    """Return if params has every required member and none that is not known. Raises ProtocolViolation."""
    unknown = params.keys() - {*required, *optional}
    if unknown:
        raise ProtocolViolation(f"{method} has no parameter {min(unknown)!r}")
    for name in required:
        if name not in params:
            raise ProtocolViolation(f"{method} needs the parameter {name!r}")
