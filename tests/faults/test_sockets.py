"""Who may have the control socket: starters at once, files in its place, other users, and listeners that are not ours."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.control.sync_client import Connection
from dispatch_core.errors import DaemonUnreachable, RemoteError, ValidationFailed
from dispatch_core.testing.daemon import Dispatch, eventually

from ..e2e.processes import daemons  # noqa: TID252 -- two folders of tests look for processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
HELLO = {"protocol": 1, "client": "test", "version": "1"}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another user")
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.mark.fault("K1")
@linux_only
def test_8_starters_at_once_over_a_stale_socket_make_one_daemon(
    home: Dispatch, tier: Any, figures: Callable[..., None]
) -> None:
    rounds = tier.rounds(2, 500)
    alive = []

    for _ in range(rounds):
        starters = [
            home.start("up", "--offline", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(8)
        ]
        answers = [starter.communicate(timeout=90) for starter in starters]
        assert [starter.returncode for starter in starters] == [0] * 8, answers
        pids = {json.loads(out)["pid"] for out, _ in answers}
        eventually(lambda pids=pids: set(daemons(home.home)) <= pids, "the losers have ended")
        alive.append(len(daemons(home.home)))
        assert pids == set(daemons(home.home))
        os.kill(pids.pop(), signal.SIGKILL)
        eventually(lambda: not daemons(home.home), "the daemon is gone")
        assert stat.S_ISSOCK(os.lstat(home.socket).st_mode)  # stale now

    assert alive == [1] * rounds
    figures(rounds=rounds, starters=8 * rounds, most_alive=max(alive), least_alive=min(alive))


@dataclass(slots=True)
class Layout:
    """A home in which something is not as it should be. reason: in the refusal; env: what is set besides DISPATCH_HOME."""

    home: Path
    reason: str
    env: dict[str, str] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "HOME": str(self.home.parent),
            "DISPATCH_HOME": str(self.home),
            **self.env,
        }
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dispatch_core.daemon.main", "run", "--offline"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )


def stale_socket(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    return path


def directory(path: Path, mode: int = 0o700, owner: int = -1) -> Path:
    path.mkdir()
    path.chmod(mode)
    os.chown(path, owner, -1)
    return path


def layouts(root: Path) -> Iterator[Layout]:
    """Make the layouts, each in a directory of its own below root."""

    def place(name: str) -> Path:
        return directory(root / name)

    yield Layout(directory(place("a") / "home", owner=NOBODY), "belongs to another user")
    at = place("b")
    directory(at / "real")
    (at / "home").symlink_to(at / "real")
    yield Layout(at / "home", "is a link or a file")
    yield Layout(directory(place("c") / "home", 0o777), "can be written by other users")
    yield Layout(directory(place("d") / "home", 0o770), "can be written by other users")
    shared = place("e")
    shared.chmod(0o777)
    yield Layout(shared / "home", "put another directory in its place")

    for name, mode, owner, reason in (
        ("f", 0o700, NOBODY, "belongs to another user"),
        ("g", 0o1777, -1, "can be written by other users"),
    ):
        at = place(name)
        elsewhere = directory(at / "run", mode, owner)
        yield Layout(at / "home", reason, {"DISPATCH_SOCKET": str(elsewhere / "s")})
    at = place("h")
    directory(at / "run")
    (at / "link").symlink_to(at / "run")
    yield Layout(at / "home", "is a link or a file", {"DISPATCH_SOCKET": str(at / "link" / "s")})

    at = directory(place("i") / "home")
    os.chown(stale_socket(at / "dispatchd.sock"), NOBODY, -1)
    yield Layout(at, f"belongs to user {NOBODY}")
    at = directory(place("j") / "home")
    (at / "dispatchd.sock").symlink_to(stale_socket(at / "other.sock"))
    yield Layout(at, "is not a socket")
    at = directory(place("k") / "home")
    (at / "dispatchd.sock").symlink_to(at / "nowhere")
    yield Layout(at, "is not a socket")
    at = directory(place("l") / "home")
    (at / "dispatchd.sock").write_text("precious")
    yield Layout(at, "is not a socket")
    at = directory(place("m") / "home")
    directory(at / "dispatchd.sock")
    yield Layout(at, "is not a socket")
    at = directory(place("n") / "home")
    (at / "dispatchd.lock").symlink_to(at / "precious")
    (at / "precious").write_text("precious")
    yield Layout(at, "the lock")
    at = place("o")
    (at / "home").write_text("precious")
    yield Layout(at / "home", "is a link or a file")


def inventory(root: Path) -> dict[str, tuple[Any, ...]]:
    """Return everything below root that is not a daemon's own log, lock or registry."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_ino, status.st_mode, status.st_uid, content)
    return found


@pytest.fixture
def root() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.mark.fault("K2")
@needs_root
def test_a_place_that_is_not_safe_is_refused_with_the_reason_and_nothing_is_deleted(
    root: Path, figures: Callable[..., None]
) -> None:
    wrong = list(layouts(root))
    before = inventory(root)

    refused, kept = 0, 0
    with contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(layout.start()) for layout in wrong]
        for daemon in daemons:
            stack.callback(daemon.kill)
        for layout, daemon in zip(wrong, daemons, strict=True):
            _, said = daemon.communicate(timeout=60)
            assert daemon.returncode not in (0, None), layout.home
            assert layout.reason in said, (layout.home, said)
            assert "hint:" in said
            refused += 1

    after = inventory(root)
    for path, what in before.items():
        assert after.get(path) == what, path
        kept += 1
    figures(layouts=len(wrong), refused=refused, files_before=len(before), files_kept=kept)


@pytest.mark.fault("K2")
def test_a_stale_socket_open_to_everybody_and_a_path_too_long_are_made_good(
    home: Dispatch, figures: Callable[..., None]
) -> None:
    stale = stale_socket(Path(home.socket))
    stale.chmod(0o777)
    before = stale.lstat().st_ino
    long = home.home / ("x" * 90) / "s"

    home.json("up", "--offline")
    made = stale.lstat()
    home.json("down", "--grace", "0")
    elsewhere = Dispatch(home.home, {"DISPATCH_SOCKET": str(long)})
    socket_path = Path(elsewhere.json("up", "--offline")["socket"])
    short = socket_path.lstat()
    elsewhere.json("down", "--grace", "0")

    assert made.st_ino != before
    modes = [stat.S_IMODE(made.st_mode), stat.S_IMODE(short.st_mode)]
    assert modes == [0o600, 0o600]
    assert socket_path.is_relative_to(home.home / "user")
    assert len(os.fsencode(socket_path)) <= 100
    assert not long.parent.exists()
    figures(layouts=len(modes), private=modes.count(0o600))


@pytest.mark.fault("K5")
@linux_only
def test_a_daemon_with_128_descriptors_works_for_the_clients_it_has(
    home: Dispatch, figures: Callable[..., None]
) -> None:
    up = ["sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *home.argv("up", "--offline")]
    subprocess.run(up, env=home.environment, check=True, capture_output=True, timeout=90)
    pid = home.pid()
    idle = len(list(Path(f"/proc/{pid}/fd").iterdir()))

    refused = dropped = answered = 0
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(150):
            client = stack.enter_context(Connection.connect(home.socket, timeout=60))
            try:
                client.hello(HELLO, timeout=60)
            except RemoteError as error:
                refused += error.code == "daemon_unreachable"
            else:
                clients.append(client)
        first = clients[0]
        made = {"name": "k5", "text": "hello", "cwd": str(home.home)}
        thread = first.request("new", made, timeout=60).result
        [waited] = first.request("wait", {"thread": ["@k5"]}, timeout=60).result["results"]
        most = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        for client in clients:
            try:
                answered += bool(client.request("list", {}, timeout=60, read=True).result)
            except DaemonUnreachable:
                dropped += 1

    assert thread
    assert waited["outcome"] == "done"
    assert dropped == 0
    assert refused + len(clients) == 150
    assert refused > 0
    assert answered == len(clients)
    eventually(lambda: home.run("daemon", "status").returncode == 0, "it accepts again")
    figures(
        clients=len(clients),
        refused_with_an_error=refused,
        dropped=dropped,
        descriptors_idle=idle,
        descriptors_full=most,
    )


SWAPPER = textwrap.dedent("""
    # Exchanges a directory for a link to another one and back, until its standard input ends.
    import os, random, select, sys
    directory, other = sys.argv[1:]
    print("ready", flush=True)
    count = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        os.rename(directory, directory + ".away")
        os.symlink(other, directory)
        os.unlink(directory)
        os.rename(directory + ".away", directory)
        count += 1
        for _ in range(random.randrange(2000)):  # it is where it belongs for a while
            pass
    print(count)
""")


@pytest.mark.fault("K2")
def test_a_directory_exchanged_meanwhile_never_leads_the_socket_elsewhere(
    root: Path, tier: Any, figures: Callable[..., None]
) -> None:
    ours, other = directory(root / "run"), directory(root / "other")
    theirs = stale_socket(other / "control.sock")
    before = inventory(other)
    path = ours / "control.sock"
    rounds = tier.rounds(300, 10_000)
    opened = refused = elsewhere = 0
    with subprocess.Popen(
        [sys.executable, "-c", SWAPPER, str(ours), str(other)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as swapper:
        try:
            assert swapper.stdout is not None
            assert swapper.stdout.readline() == "ready\n"
            for _ in range(rounds):
                try:
                    listener = open_listener(path)
                except ValidationFailed:
                    refused += 1
                else:
                    opened += 1
                    close_listener(listener, path)
                elsewhere += len(os.listdir(other)) - 1  # noqa: PTH208
            exchanged, _ = swapper.communicate("", timeout=60)
        finally:
            swapper.kill()

    assert elsewhere == 0
    assert inventory(other) == before
    assert theirs.is_socket()
    assert list(ours.iterdir()) == []
    assert int(exchanged) > 0
    figures(
        rounds=rounds, exchanged=int(exchanged), opened=opened, refused=refused, elsewhere=elsewhere
    )


STRANGER = textwrap.dedent("""
    # As another user: connects, greets and reads, as often as it is told.
    import json, os, socket, sys
    path, rounds = sys.argv[1], int(sys.argv[2])
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    hello = b'{"id":0,"method":"$hello","params":{"protocol":1,"client":"x","version":"1"}}\\n'
    refused = closed = answered = 0
    for _ in range(rounds):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            try:
                client.connect(path)
            except PermissionError:
                refused += 1
                continue
            try:
                client.sendall(hello)
                got = client.recv(100)
            except (BrokenPipeError, ConnectionResetError):
                got = b""
            answered += bool(got)
            closed += not got
    print(json.dumps({"refused": refused, "closed": closed, "answered": answered}))
""")


@pytest.mark.fault("K3")
@needs_root
def test_another_user_is_refused_by_the_modes_and_by_the_credentials_each_alone(
    home: Dispatch, tier: Any, figures: Callable[..., None]
) -> None:
    home.json("up", "--offline")
    tries = tier.rounds(200, 10_000)
    ways = {
        "everything private": (0o700, 0o600),
        "an open directory": (0o755, 0o600),
        "an open socket": (0o700, 0o777),
        "everything open": (0o755, 0o777),
    }
    count: dict[str, dict[str, int]] = {}

    for way, (directory_mode, socket_mode) in ways.items():
        home.home.chmod(directory_mode)
        Path(home.socket).chmod(socket_mode)
        command = [sys.executable, "-c", STRANGER, home.socket, str(tries // len(ways))]
        count[way] = json.loads(
            subprocess.run(command, capture_output=True, check=True, timeout=300).stdout
        )
    home.home.chmod(0o700)

    each = tries // len(ways)
    for way in ("everything private", "an open directory", "an open socket"):
        assert count[way] == {"refused": each, "closed": 0, "answered": 0}
    assert count["everything open"] == {"refused": 0, "closed": each, "answered": 0}
    assert home.json("daemon", "status", "--no-start")["pid"]
    figures(
        tries=sum(sum(counted.values()) for counted in count.values()),
        refused_by_mode=sum(counted["refused"] for counted in count.values()),
        refused_by_credentials=sum(counted["closed"] for counted in count.values()),
        answered=sum(counted["answered"] for counted in count.values()),
    )


IMPOSTOR = textwrap.dedent("""
    # Listens as another user and says what it is sent. The file belongs to the user named, who is the one it was bound by or not.
    import os, socket, sys
    path, owner = sys.argv[1], int(sys.argv[2])
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    os.chown(path, owner, -1)
    os.setresuid(65534, 65534, 65534)
    listener.listen()
    listener.settimeout(60)
    print("ready", flush=True)
    while True:
        client, _ = listener.accept()
        with client:
            print(client.recv(1000), flush=True)
""")


@pytest.mark.fault("K3")
@needs_root
@pytest.mark.parametrize("owner", [0, NOBODY], ids=["our file", "their file"])
def test_a_command_sends_no_byte_to_a_listener_of_another_user(
    home: Dispatch, owner: int, figures: Callable[..., None]
) -> None:
    command = [sys.executable, "-c", IMPOSTOR, home.socket, str(owner)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as impostor:
        try:
            assert impostor.stdout is not None
            assert impostor.stdout.readline() == "ready\n"
            errors = [home.error(*words) for words in (["list"], ["send", "@x", "secret"], ["up"])]
        finally:
            impostor.kill()
        received = impostor.stdout.read().splitlines()

    assert [error["code"] for error in errors] == ["authority"] * 3
    assert all("belongs to user 65534" in error["message"] for error in errors)
    assert set(received) <= {"b''"}
    assert daemons(home.home) == []
    figures(
        commands=len(errors),
        connections=len(received),
        bytes_sent=sum(line != "b''" for line in received),
    )
