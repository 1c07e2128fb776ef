"""Other builds of dispatch: the code under test, copied and changed, as a distribution that stands first on the path."""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.testing.daemon import Dispatch

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
PACKAGES = ("dispatch_core", "dispatch_plugins", "hookspecs/dispatch_hookspecs")

# An op that reads and one that writes, each with another contract.
OTHER_LIST = {
    "dispatch_plugins/ops/threads/listing.py": (
        "Show archived threads as well.",
        "Show archived threads too.",
    )
}
OTHER_RENAME = {"dispatch_plugins/ops/lifecycle.py": ("The new name; ", "The name it gets; ")}
# Code that no process can import, but the command line does not need.
BROKEN = {"dispatch_core/daemon/engine.py": ("import anyio\n", "import anyio, no_such_module\n")}
# A daemon that shows that it could start, and does not.
DIES = {
    "dispatch_core/daemon/assembly.py": (
        "async with AsyncExitStack() as stack:",
        'raise RuntimeError("it dies")\n        async with AsyncExitStack() as stack:',
    )
}


def make_build(target: Path, version: str, changes: Mapping[str, tuple[str, str]]) -> Path:
    """Return target, in which a build with this version is installed. changes: in each file, what is replaced by what."""
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package,
            target / Path(package).name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for file, (old, new) in {**changes}.items():
        path = target / file
        text = path.read_text()
        assert old in text, f"{file} has changed: {old!r} is not in it"
        path.write_text(text.replace(old, new, 1))
    _set_version(target, version)
    return target


def with_build(dispatch: Dispatch, build: Path, **env: str) -> Dispatch:
    """Return the commands of a build, over the same home."""
    return Dispatch(dispatch.home, {**dispatch.env, "PYTHONPATH": str(build), **env})


def _set_version(target: Path, version: str) -> None:
    module = target / "dispatch_core" / "__init__.py"
    lines = [
        f'__version__ = "{version}"' if line.startswith("__version__") else line
        for line in module.read_text().splitlines()
    ]
    module.write_text("\n".join(lines) + "\n")
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    info = target / f"codex_dispatch-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: codex-dispatch\nVersion: {version}\n"
    )
    groups = parser["options.entry_points"]
    (info / "entry_points.txt").write_text(
        "".join(f"[{group}]{entries}\n" for group, entries in groups.items())
    )
