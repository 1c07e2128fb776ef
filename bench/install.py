"""A regular install of this tree, as users have it: an editable one costs every Python process an import hook."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("dispatch_core", "dispatch_plugins", "hookspecs")
FILES = ("pyproject.toml", "setup.cfg", "LICENSE", "README.md")


def installed() -> Path:
    """Return the bin directory of a virtual environment in which dispatch is installed as it is now.

    The environment is kept in the cache directory of the user, so only a change of the tree costs another install.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = f"bench-{sys.version_info.major}.{sys.version_info.minor}"
    directory = Path(cache) / "codex-dispatch" / name
    python = directory / "bin" / "python"
    stamp, wanted = directory / "dispatch.stamp", _digest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python.parent
    if not python.exists():
        # With the current pip, which writes a lighter console script than the one that comes with older Pythons.
        venv.create(directory, with_pip=True, upgrade_deps=True)
    with tempfile.TemporaryDirectory() as temporary:
        source = _copy(Path(temporary))
        # Twice: the first brings the dependencies, the second replaces what is there already.
        for options in ((), ("--no-deps", "--force-reinstall")):
            pip = [str(python), "-m", "pip", "install", "--quiet", *options, str(source)]
            subprocess.run(pip, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    stamp.write_text(wanted)
    return python.parent


def _sources() -> list[Path]:
    found = [file for package in PACKAGES for file in (ROOT / package).rglob("*")]
    kept = [file for file in found if file.is_file() and "__pycache__" not in file.parts]
    return sorted(kept) + [ROOT / name for name in FILES if (ROOT / name).exists()]


def _digest() -> str:
    digest = hashlib.blake2b(digest_size=16)
    for file in _sources():
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _copy(target: Path) -> Path:
    """Copy what is installed: building in the tree would leave a build directory in it."""
    for file in _sources():
        copy = target / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, copy)
    (target / "README.md").touch()
    return target
