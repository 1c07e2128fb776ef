"""Where things are, and what the log shows."""

from __future__ import annotations

import logging
import os
import stat

import pytest

from dispatch_core.daemon import logs
from dispatch_core.daemon.paths import SOCKET_LIMIT, Paths


def test_everything_is_in_the_home_that_was_asked_for(tmp_path):
    paths = Paths.from_env({"DISPATCH_HOME": str(tmp_path)})

    for name in ("socket", "lock", "log", "config", "cache", "offline", "codex_pid"):
        assert getattr(paths, name).startswith(f"{tmp_path}/")
    assert paths.data(offline=False) == paths.home
    assert paths.data(offline=True) == paths.offline


def test_relative_paths_are_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    paths = Paths.from_env(
        {"DISPATCH_HOME": "h", "DISPATCH_SOCKET": "s.sock", "DISPATCH_CONFIG": "c.toml"}
    )

    assert (paths.home, paths.socket, paths.config) == (
        f"{tmp_path}/h",
        f"{tmp_path}/s.sock",
        f"{tmp_path}/c.toml",
    )


@pytest.mark.parametrize("name", ["x" * 100, "é" * 60])
def test_a_path_too_long_for_a_socket_is_replaced_by_a_short_one(name, monkeypatch):
    monkeypatch.setenv("HOME", "/home/u")

    one, other = Paths(f"/data/{name}"), Paths(f"/data/{name}2")

    assert len(os.fsencode(one.socket)) <= SOCKET_LIMIT
    assert one.socket.startswith("/home/u/.dispatch/s-")
    assert one.socket != other.socket
    assert one.socket == Paths(f"/data/{name}").socket
    assert one.log == f"/data/{name}/dispatchd.log"


def test_a_path_that_just_fits_is_kept():
    home = "/" + "x" * (SOCKET_LIMIT - len("/dispatchd.sock") - 1)

    assert Paths(home).socket == f"{home}/dispatchd.sock"
    assert Paths(f"{home}x").socket != f"{home}x/dispatchd.sock"


@pytest.fixture
def root():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield root
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)


@pytest.mark.parametrize(
    ("wanted", "level"), [("debug", logging.DEBUG), ("", logging.INFO), ("loud", logging.INFO)]
)
def test_the_log_is_private_and_has_the_level_asked_for(tmp_path, root, monkeypatch, wanted, level):
    monkeypatch.setenv("DISPATCH_LOG_LEVEL", wanted)
    path = str(tmp_path / "log")

    logs.configure(path, max_bytes=10_000)

    assert root.level == level
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def test_the_tail_of_a_log_is_its_newest_lines_cut_to_size(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\n" + b"x" * 5000 + b"\n\xff\n")

    assert logs.tail(str(path), 2) == ["x" * logs.LINE_LIMIT, "\ufffd"]
    assert logs.tail(str(tmp_path / "none"), 2) == []
