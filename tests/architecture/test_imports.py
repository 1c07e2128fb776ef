"""Who may import whom: the contracts hold, each of them can fail, and the fast path stays fast."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, get_origin

import pytest

if TYPE_CHECKING:
    from dispatch_core.testing.daemon import Dispatch

ROOT = Path(__file__).parents[2]
HEAVY = ("anyio", "asyncio", "mcp", "mcp_types", "peewee", "pluggy", "pydantic", "stevedore")

# A line that breaks a contract: (name of the contract, file, planted line)
PLANTED = {
    "layers": ("dispatch_core/contracts/caller.py", "import dispatch_core.engine.ids"),
    "kernel": ("dispatch_core/settings.py", "import dispatch_plugins.ops.send"),
    "hookspecs": ("hookspecs/dispatch_hookspecs/__init__.py", "import pydantic"),
    "plugins": ("dispatch_plugins/ops/wait/__init__.py", "import dispatch_plugins.ops.threads"),
    "facade": ("dispatch_plugins/ops/wait/__init__.py", "import dispatch_core.engine.lanes"),
    "pluggy": ("dispatch_core/engine/lanes.py", "import pluggy"),
    "stevedore": ("dispatch_core/plugin/refs.py", "import stevedore"),
    "click": ("dispatch_core/daemon/host.py", "import click"),
    "mcp": ("dispatch_plugins/cli/main.py", "import mcp_types"),
    "peewee": ("dispatch_core/engine/lanes.py", "import peewee"),
    "fast-path": ("dispatch_core/control/wire.py", "import pydantic"),
}


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as l; l()",
            "--no-cache",
        ],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": f"{tree}:{tree}/hookspecs"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("tree")
    for name in ("dispatch_core", "dispatch_plugins", "hookspecs"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.cfg", target)
    return target


def contracts() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    prefix = "importlinter:contract:"
    return [s.removeprefix(prefix) for s in parser.sections() if s.startswith(prefix)]


def test_the_import_contracts_hold(tree: Path) -> None:
    done = lint(tree)

    assert done.returncode == 0, done.stdout


def test_every_contract_has_a_planted_violation() -> None:
    assert sorted(contracts()) == sorted(PLANTED)


def test_planted_violations_break_their_contracts(tree: Path) -> None:
    originals = {}
    for file, line in PLANTED.values():
        path = tree / file
        originals.setdefault(path, path.read_text())
        head, mark, rest = path.read_text().partition("from __future__ import annotations\n")
        path.write_text(f"{head}{mark}{line}\n{rest}")
    try:
        done = lint(tree)
    finally:
        for path, text in originals.items():
            path.write_text(text)

    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    output = " ".join(done.stdout.split())
    for name in contracts():
        title = parser[f"importlinter:contract:{name}"]["name"]
        assert f"{title} BROKEN" in output, name


def test_dispatch_list_imports_nothing_heavy(dispatch: Dispatch) -> None:
    dispatch.json("list")
    argv = dispatch.argv("list")

    done = subprocess.run(
        [argv[0], "-X", "importtime", *argv[1:]],
        env=dispatch.environment,
        capture_output=True,
        text=True,
        check=True,
    )

    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "dispatch_core.plugin.manifest" in imported
    assert [name for name in sorted(imported) if name.partition(".")[0] in HEAVY] == []


def test_the_hooks_package_imports_without_the_kernel(tree: Path) -> None:
    code = "import sys, dispatch_hookspecs; print([m for m in sys.modules if m.startswith(('dispatch_core', 'pydantic'))])"

    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": f"{tree}/hookspecs:{Path(__import__('pluggy').__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "[]"


def test_the_daemon_listens_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys; from dispatch_core.daemon import assembly; from dispatch_plugins.registry import plugin, backend;"
        "print([m for m in sys.modules if m.partition('.')[0] in ('pydantic', 'mcp', 'cronsim', 'click')])"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_every_public_name_comes_from_the_module_that_defines_it() -> None:
    from dispatch_core import api

    for name in api.__all__:
        value = getattr(api, name)
        # A type alias says where the type is from that it is made of.
        alias = get_origin(value) is not None
        module = "typing" if alias else getattr(value, "__module__", "dispatch_core.contracts")
        assert module.startswith(
            ("dispatch_core.contracts", "dispatch_core.errors", "pluggy", "typing")
        )
