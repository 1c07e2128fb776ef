"""One daemon per home, in a directory that is ours alone."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dispatch_core.daemon.lock import AlreadyRunning, hold, private_directory
from dispatch_core.errors import ValidationFailed

HOLDER = """
import sys
from dispatch_core.daemon.lock import hold
with hold(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    path = str(tmp_path / "lock")
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield path, process
    process.kill()
    process.communicate()


def test_a_second_holder_is_refused_at_once(holder):
    path, process = holder

    with pytest.raises(AlreadyRunning) as caught, hold(path):
        pass

    assert caught.value.details == {"lock": path}
    assert f'"pid": {process.pid}' in Path(path).read_text()


def test_the_lock_of_a_killed_holder_is_free(holder):
    path, process = holder

    process.kill()
    process.wait()

    with hold(path):
        assert f'"pid": {os.getpid()}' in Path(path).read_text()


def test_the_lock_is_free_again_afterwards_and_private(tmp_path):
    path = str(tmp_path / "lock")

    with hold(path):
        pass

    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    with Path(path).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("link", [True, False])
def test_a_lock_that_is_no_file_of_ours_is_refused(tmp_path, link):
    path = tmp_path / "lock"
    path.symlink_to("elsewhere") if link else path.mkdir()

    with pytest.raises(ValidationFailed) as caught, hold(str(path)):
        pass

    assert str(path) in caught.value.message
    assert not (tmp_path / "elsewhere").exists()


def test_a_directory_is_made_private_with_its_parents(tmp_path):
    made = private_directory(tmp_path / "a" / "b")

    assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_readable_directory_is_made_private(tmp_path):
    tmp_path.chmod(0o755)

    private_directory(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_others_can_write_is_refused_and_left_as_it_is(tmp_path, mode):
    tmp_path.chmod(mode)

    with pytest.raises(ValidationFailed, match="written by other users"):
        private_directory(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == mode
    tmp_path.chmod(0o700)


@pytest.mark.parametrize(("mode", "safe"), [(0o777, False), (0o757, False), (0o1777, True)])
def test_a_directory_that_every_user_can_exchange_is_refused(tmp_path, mode, safe):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)

    if safe:
        private_directory(shared / "below" / "home")
    else:
        with pytest.raises(ValidationFailed, match="put another directory in its place"):
            private_directory(shared / "below" / "home")

    assert bool(list(shared.iterdir())) is safe


@pytest.mark.parametrize("kind", ["link", "dangling", "file", "below-file"])
def test_what_is_no_directory_is_refused(tmp_path, kind):
    path = tmp_path / "home"
    if kind == "link":
        path.symlink_to(tmp_path)
    elif kind == "dangling":
        path.symlink_to("nowhere")
    else:
        path.write_text("")

    with pytest.raises(ValidationFailed) as caught:
        private_directory(path / "below" if kind == "below-file" else path)

    assert str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="everything is root's")
def test_a_directory_of_somebody_else_is_refused():
    with pytest.raises(ValidationFailed, match="belongs to another user"):
        private_directory("/tmp")
