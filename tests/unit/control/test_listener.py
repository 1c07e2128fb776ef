"""Where the control socket may be, and what is done when it may not."""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from dispatch_core.control.listener import close_listener, open_listener
from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from pathlib import Path


def names(directory: Path) -> list[str]:
    return [entry.name for entry in directory.iterdir()]


def test_the_socket_is_ours_alone_and_nothing_else_is_left(socket_path: Path) -> None:
    listener = open_listener(socket_path)

    status = socket_path.lstat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert names(socket_path.parent) == [socket_path.name]
    close_listener(listener, socket_path)
    assert names(socket_path.parent) == []


def test_the_umask_is_as_before(socket_path: Path) -> None:
    before = os.umask(0o027)
    try:
        close_listener(open_listener(socket_path), socket_path)

        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_a_stale_socket_is_replaced(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(socket_path))

    listener = open_listener(socket_path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_path))
    close_listener(listener, socket_path)


def test_closing_leaves_a_socket_that_took_its_place(socket_path: Path) -> None:
    first = open_listener(socket_path)
    second = open_listener(socket_path)

    close_listener(first, socket_path)

    assert socket_path.is_socket()
    close_listener(second, socket_path)
    assert not socket_path.exists()
    close_listener(open_listener(socket_path), socket_path)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701, 0o777, 0o1777])
def test_a_directory_that_is_open_to_others_is_refused_with_the_fix(
    socket_path: Path, mode: int
) -> None:
    socket_path.parent.chmod(mode)

    with pytest.raises(ValidationFailed, match="open to others") as refused:
        open_listener(socket_path)

    assert refused.value.hint == f"chmod 700 {socket_path.parent}"
    assert names(socket_path.parent) == []


def test_a_directory_that_is_a_link_is_refused(home: Path) -> None:
    (home / "real").mkdir(mode=0o700)
    (home / "link").symlink_to(home / "real")

    with pytest.raises(ValidationFailed, match="symbolic link"):
        open_listener(home / "link" / "control.sock")

    assert names(home / "real") == []


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_directory_that_is_not_there_is_refused(home: Path, kind: str) -> None:
    if kind == "file":
        (home / "run").write_text("")

    with pytest.raises(ValidationFailed) as refused:
        open_listener(home / "run" / "control.sock")

    assert refused.value.hint == f"mkdir -p -m 700 {home / 'run'}"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a directory away")
@pytest.mark.parametrize("what", ["directory", "socket"])
def test_what_belongs_to_somebody_else_is_refused(home: Path, what: str) -> None:
    directory = home / "run"
    directory.mkdir(mode=0o700)
    path = directory / "control.sock"
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
    os.chown(directory if what == "directory" else path, 65534, -1)

    with pytest.raises(ValidationFailed, match="belongs to user 65534"):
        open_listener(path)

    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "link", "dangling link", "directory"])
def test_what_is_not_a_socket_is_left_alone(socket_path: Path, kind: str) -> None:
    if kind == "file":
        socket_path.write_text("precious")
    elif kind == "directory":
        socket_path.mkdir()
    else:
        target = socket_path.with_name("target")
        if kind == "link":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(target))
        socket_path.symlink_to(target)
    before = sorted(names(socket_path.parent))

    with pytest.raises(ValidationFailed, match="not a socket"):
        open_listener(socket_path)

    assert sorted(names(socket_path.parent)) == before


def test_a_path_that_is_too_long_is_refused_before_anything_is_made(home: Path) -> None:
    path = home / ("x" * 90) / "control.sock"

    with pytest.raises(ValidationFailed, match="too long"):
        open_listener(path)


def test_a_leftover_of_the_same_process_number_does_no_harm(socket_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(socket_path.with_name(f".{os.getpid()}.sock")))

    close_listener(open_listener(socket_path), socket_path)

    assert names(socket_path.parent) == []


def test_a_path_of_the_longest_length_works(home: Path) -> None:
    directory = home / ("x" * (100 - len(str(home)) - len("//dispatchd.sock")))
    directory.mkdir(mode=0o700)
    path = directory / "dispatchd.sock"

    close_listener(open_listener(path), path)

    assert len(str(path)) == 100
    assert names(directory) == []
