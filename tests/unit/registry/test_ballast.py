"""Space in reserve: taken where there is room, given up when there is none, and never in the way."""

from __future__ import annotations

import os

import pytest

from dispatch_core.api import StorageError
from dispatch_core.testing.storage import a_thread
from dispatch_plugins.registry.ballast import SIZE, Ballast
from dispatch_plugins.registry.mounts import require_local

pytestmark = pytest.mark.anyio


async def test_an_open_registry_has_a_private_reserve_that_takes_up_its_size(registry, path):
    reserve = path.with_name("registry.db.ballast").stat()

    assert reserve.st_size <= SIZE
    assert reserve.st_blocks * 512 >= reserve.st_size > 0
    assert reserve.st_mode & 0o777 == 0o600
    assert not registry.full


def test_what_is_given_up_is_made_again_when_there_is_room(path):
    ballast = Ballast(path)
    ballast.hold()

    released = ballast.release()

    assert released
    assert not ballast.path.exists()
    assert ballast.full
    assert not ballast.release()
    again = Ballast(path)
    assert not again.full
    again.hold()
    assert again.path.stat().st_size > 0


def test_a_copy_with_holes_is_made_anew(path):
    first = Ballast(path)
    first.hold()
    size = first.path.stat().st_size
    first.path.unlink()
    with first.path.open("wb") as file:
        file.truncate(size)

    Ballast(path).hold()

    assert first.path.stat().st_blocks * 512 >= size


async def test_a_reserve_that_cannot_be_made_keeps_nobody_from_writing(open_registry, path):
    path.with_name("registry.db.ballast").mkdir()

    async with open_registry() as registry:
        assert await registry.threads.add(a_thread(), ["0AAAA1"])
        assert not registry.full


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs"])
def test_a_network_file_system_is_refused(path, tmp_path, kind):
    device = path.parent.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"29 1 {os.major(device)}:{os.minor(device)} / /home rw,relatime shared:1 - {kind} server:/home rw\n"
    )

    with pytest.raises(StorageError, match="network file system") as caught:
        require_local(path, mounts)

    assert kind in caught.value.message
    assert "local disk" in caught.value.hint


def test_a_local_file_system_and_an_unknown_one_are_not_refused(path, tmp_path):
    require_local(path)
    require_local(path, tmp_path / "there-is-none")
