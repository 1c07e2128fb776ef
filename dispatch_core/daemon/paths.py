"""Where everything is. Standard library only and few imports: the fast path of the CLI reads it."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

READY_FD = "DISPATCHD_READY_FD"  # tells the daemon on which pipe its starter waits
SOCKET_LIMIT = (
    100  # bytes; the kernel's limit on a Unix socket's path is 104 on macOS and 108 on Linux
)


class Paths:
    """Absolute paths of one dispatch home, as strings.

    home: ``DISPATCH_HOME`` or ``~/.dispatch``. socket: ``DISPATCH_SOCKET`` or in the home; a path too long for a socket is
    replaced by a short one under the user's home directory. out: what the daemon process writes before its log is open.
    """

    __slots__ = (
        "cache",
        "codex_pid",
        "config",
        "home",
        "lock",
        "log",
        "offline",
        "out",
        "socket",
    )

    def __init__(self, home: str, *, socket: str | None = None, config: str | None = None) -> None:
        self.home = home
        self.socket = _short(socket or f"{home}/dispatchd.sock")
        self.lock = f"{home}/dispatchd.lock"
        self.codex_pid = f"{home}/codex.pid"
        self.log = f"{home}/dispatchd.log"
        self.out = f"{home}/dispatchd.out"
        self.config = config or f"{home}/config.toml"
        self.cache = f"{home}/cache"
        self.offline = f"{home}/offline"

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Paths:
        """Return the paths that the environment asks for."""
        home = env.get("DISPATCH_HOME") or os.path.join(os.path.expanduser("~"), ".dispatch")
        socket = env.get("DISPATCH_SOCKET")
        config = env.get("DISPATCH_CONFIG")
        return cls(
            os.path.abspath(home),
            socket=os.path.abspath(socket) if socket else None,
            config=os.path.abspath(config) if config else None,
        )

    def data(self, *, offline: bool) -> str:
        """Return the directory of the registry; offline threads have their own, for they exist in another Codex home."""
        return self.offline if offline else self.home


def _short(path: str) -> str:
    if len(os.fsencode(path)) <= SOCKET_LIMIT:
        return path
    import zlib

    digest = f"{zlib.crc32(os.fsencode(path)):08x}"
    return os.path.join(os.path.expanduser("~"), ".dispatch", f"s-{digest}.sock")
