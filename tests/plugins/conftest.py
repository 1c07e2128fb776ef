"""The example distributions, installed by pip, and commands that run with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

REPO = Path(__file__).parents[2]
EXAMPLES = REPO / "plugins" / "examples"
BROKEN = EXAMPLES / "dispatch-broken"
SOUND = ("counted", "loud")
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")
INSTALL_DEADLINE = 300.0
DEADLINE = 90.0
BUILD_DEADLINE = 6.0  # far more than the sound plugins need, also on a busy machine

SHOW_MANIFEST = """
import json, os, sys
from dispatch_core.daemon.paths import Paths
from dispatch_core.errors import DispatchError
from dispatch_core.plugin import manifest

safe, deadline = json.loads(sys.argv[1])
try:
    answer = {"manifest": manifest.load(Paths.from_env(os.environ), safe=safe, deadline=deadline)}
except DispatchError as error:
    answer = {"error": error.to_dict(), "type": type(error).__name__}
answer["imported"] = [name for name in sys.modules if name.startswith(("broken_", "dispatch_echo"))]
print(json.dumps(answer, default=dict))
"""


@dataclass(frozen=True)
class Site:
    """Directories into which distributions were installed, and the interpreter that sees them.

    home: the dispatch home of this test. env: what is set besides. flags: what stands before the words of every command.
    """

    home: Path
    directories: Sequence[Path]
    python: Path
    env: Mapping[str, str] = field(default_factory=dict)
    flags: Sequence[str] = ("-P",)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the interpreter to its end."""
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DISPATCH_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join(map(str, self.directories)),
            **self.env,
        }
        return subprocess.run(
            [str(self.python), *self.flags, *words],
            env=env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )

    def json(self, *words: str) -> Any:
        """Run the interpreter, which must succeed, and return what it printed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def dispatch(self, *words: str) -> Any:
        """Run a command of dispatch, which must succeed, and return what it printed."""
        return self.json("-m", "dispatch_core.boot", *words)

    def answer(self, *, safe: bool = False) -> dict[str, Any]:
        """Return {manifest} or {error, type} of a process that asks for the manifest, and which plugins it imported."""
        found = self.json("-c", SHOW_MANIFEST, json.dumps([safe, BUILD_DEADLINE]))
        assert isinstance(found, dict)
        return found

    def manifest(self, *, safe: bool = False) -> dict[str, Any]:
        """Return the manifest, made by a process that imports no plugin itself."""
        answer = self.answer(safe=safe)
        assert answer["imported"] == []
        found = answer["manifest"]
        assert isinstance(found, dict)
        return found

    def cached(self) -> list[Path]:
        """Return the manifest files."""
        return sorted((self.home / "cache").glob("manifest-*"))

    def configure(self, text: str) -> None:
        """Write the configuration file."""
        (self.home / "config.toml").write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Installed:
    """What pip made of the examples. sound: counted, loud and dispatch-echo. broken: the others of dispatch-broken."""

    sound: Path
    broken: Sequence[Path]

    @property
    def everything(self) -> list[Path]:
        return [self.sound, *self.broken]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def workshop() -> Iterator[Path]:
    """A directory with copies of the sources, because building leaves traces in them, and what pip needs to build."""
    directory = Path(tempfile.mkdtemp(prefix="d-", dir="/tmp"))
    leave = shutil.ignore_patterns("build", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(EXAMPLES, directory / "examples", ignore=leave)
    backend = tomllib.loads((BROKEN / "loud" / "pyproject.toml").read_text())["build-system"]
    finish(_pip(["install", "--target", directory / "backend", *backend["requires"]]))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def pip(workshop: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start pip, which builds with the backend of the workshop: ``pip("install", …, python=…)``."""

    def start(*words: object, python: Path | None = None) -> subprocess.Popen[str]:
        interpreter = ["--python", python] if python else []
        return _pip([*interpreter, *words], PYTHONPATH=str(workshop / "backend"))

    return start


@pytest.fixture(scope="session")
def installed(workshop: Path, pip: Callable[..., subprocess.Popen[str]]) -> Installed:
    """All examples, installed once per session. Three at a time, because pip spends its time waiting for builds."""
    sources = workshop / "examples" / "dispatch-broken"
    broken = sorted(p for p in sources.iterdir() if p.is_dir() and p.name not in SOUND)
    parts = {
        workshop / "sound": [*(sources / s for s in SOUND), workshop / "examples/dispatch-echo"],
        workshop / "broken-0": broken[0::2],
        workshop / "broken-1": broken[1::2],
    }
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--no-compile")
    running = [pip("install", *offline, "--target", to, *what) for to, what in parts.items()]
    for process in running:
        finish(process)
    sound, *others = parts
    return Installed(sound, others)


@pytest.fixture(scope="session")
def venv(workshop: Path, pip: Callable[..., subprocess.Popen[str]]) -> Path:
    """The interpreter of a fresh environment, in which pip installed dispatch.

    It is no editable install, so nobody's editor can change it during a test. The dependencies are those of this interpreter.
    """
    directory = workshop / "venv"
    command = [sys.executable, "-m", "venv", "--without-pip", str(directory)]
    subprocess.run(command, check=True, timeout=INSTALL_DEADLINE)
    python = directory / "bin" / "python"
    (packages,) = directory.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    source = workshop / "dispatch"
    source.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "LICENSE"):
        shutil.copy(REPO / name, source)
    (source / "README.md").touch()  # the build wants one, and nobody reads it here
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("dispatch_core", "dispatch_plugins", "hookspecs"):
        shutil.copytree(REPO / name, source / name, ignore=leave)
    flags = ("--no-index", "--no-build-isolation", "--no-deps", "--ignore-installed")
    finish(pip("install", *flags, source, python=python))
    return python


@pytest.fixture(scope="session")
def make_site(venv: Path) -> Iterator[Callable[..., Site]]:
    """Make a site: ``make_site([directory], NAME=value)``. The path of its home is short enough for a socket."""
    homes: list[Path] = []

    def make(directories: Sequence[Path], **env: str) -> Site:
        homes.append(Path(tempfile.mkdtemp(prefix="d-", dir="/tmp")))
        return Site(homes[-1], directories, venv, env)

    yield make
    for home in homes:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def everything(installed: Installed, make_site: Callable[..., Site]) -> Site:
    """All examples at once, and a home in which the manifest of them has been made."""
    site = make_site(installed.everything)
    site.manifest()
    return site


@pytest.fixture
def codex_binary() -> str:
    """The Codex that this environment has; the interpreter of a site may not have one."""
    from dispatch_core.appserver.binary import find_codex

    return str(find_codex(None, os.environ).path)


@pytest.fixture
def sound(installed: Installed, make_site: Callable[..., Site]) -> Callable[..., Site]:
    """Make a site with the sound examples only: ``sound(NAME=value)``."""
    return lambda **env: make_site([installed.sound], **env)


def finish(process: subprocess.Popen[str]) -> None:
    """Wait for pip, which must succeed."""
    output, _ = process.communicate(timeout=INSTALL_DEADLINE)
    assert process.returncode == 0, output


def _pip(words: Sequence[object], **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *PIP, *map(str, words)],
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
