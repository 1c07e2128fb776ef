from __future__ import annotations

import os
from pathlib import Path

import codex_cli_bin
import pytest

from dispatch_core.appserver.binary import (
    MIN_VERSION,
    CodexBinary,
    Version,
    check_version,
    codex_version,
    find_codex,
)
from dispatch_core.errors import CodexUnavailable

NATIVE = b"\x7fELF" + bytes(60)


def executable(path: Path, content: bytes = NATIVE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def test_the_configured_one_comes_first(tmp_path):
    configured, named = executable(tmp_path / "a"), executable(tmp_path / "b")
    executable(tmp_path / "bin" / "codex")

    found = find_codex(
        str(configured), {"DISPATCH_CODEX_BIN": str(named), "PATH": str(tmp_path / "bin")}
    )

    assert found == CodexBinary(configured, "config")


def test_the_variable_comes_before_the_path(tmp_path):
    named = executable(tmp_path / "b")
    executable(tmp_path / "bin" / "codex")

    found = find_codex(None, {"DISPATCH_CODEX_BIN": str(named), "PATH": str(tmp_path / "bin")})

    assert found == CodexBinary(named, "DISPATCH_CODEX_BIN")


def test_the_path_comes_before_the_wheel(tmp_path):
    on_path = executable(tmp_path / "bin" / "codex")

    found = find_codex(None, {"PATH": str(tmp_path / "bin")})

    assert found == CodexBinary(on_path, "PATH")


def test_the_wheel_comes_last(tmp_path):
    found = find_codex(None, {"PATH": str(tmp_path)})

    assert found == CodexBinary(Path(codex_cli_bin.bundled_codex_path()), "wheel")


def test_a_bare_name_is_looked_up_on_the_path(tmp_path):
    other = executable(tmp_path / "bin" / "codex-beta")

    found = find_codex("codex-beta", {"PATH": str(tmp_path / "bin")})

    assert found == CodexBinary(other, "config")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{tmp}/missing", "does not exist"),
        ("{tmp}/plain", "is not an executable file"),
        ("{tmp}", "is not an executable file"),
        ("sub/codex", "is not an absolute path"),
        ("no-such-codex", "is not on PATH"),
    ],
)
def test_a_named_one_that_cannot_run_is_never_passed_over(tmp_path, value, reason):
    (tmp_path / "plain").write_bytes(NATIVE)
    executable(tmp_path / "bin" / "codex")

    with pytest.raises(CodexUnavailable) as caught:
        find_codex(value.format(tmp=tmp_path), {"PATH": str(tmp_path / "bin")})

    assert reason in caught.value.message
    assert "[codex] bin" in caught.value.message
    assert caught.value.hint
    assert caught.value.details["permanent"] is True


@pytest.mark.parametrize(
    "layout",
    [
        "lib/@openai/codex/vendor/{triple}/codex/codex",
        "lib/@openai/codex/node_modules/@openai/codex-x/vendor/{triple}/bin/codex",
        "lib/@openai/codex-x/vendor/{triple}/bin/codex",
    ],
)
def test_the_npm_script_is_replaced_by_the_native_binary_beside_it(tmp_path, layout):
    system = "apple-darwin" if os.uname().sysname == "Darwin" else "unknown-linux-musl"
    machine = {"arm64": "aarch64"}.get(os.uname().machine, os.uname().machine)
    script = executable(tmp_path / "lib/@openai/codex/bin/codex.js", b"#!/usr/bin/env node\n")
    executable(tmp_path / layout.format(triple="sparc-unknown-plan9"))
    native = executable(tmp_path / layout.format(triple=f"{machine}-{system}"))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "codex").symlink_to(script)

    found = find_codex(None, {"PATH": str(tmp_path / "bin")})

    assert found == CodexBinary(native, "PATH")


def test_a_script_with_no_native_binary_beside_it_is_used_as_it_is(tmp_path):
    script = executable(tmp_path / "bin" / "codex", b"#!/bin/sh\n")

    found = find_codex(None, {"PATH": str(tmp_path / "bin")})

    assert found == CodexBinary(script, "PATH")


@pytest.mark.anyio
async def test_the_real_one_tells_its_version(codex_binary):
    version = await codex_version(codex_binary)

    assert version[:3] >= MIN_VERSION
    assert check_version(version) is None


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("codex-cli 0.169.0", "0.169.0"),
        ("codex-cli 0.169.0-alpha.5", "0.169.0-alpha.5"),
        ("codex-cli 0.169.0+dirty (a1b2c3)", "0.169.0+dirty"),
    ],
)
async def test_a_prerelease_is_another_version_than_the_release(tmp_path, said, meant):
    binary = executable(tmp_path / "codex", f"#!/bin/sh\necho '{said}'\n".encode())

    version = await codex_version(binary)

    assert str(version) == meant
    assert version[:3] == (0, 169, 0)
    assert check_version(version) is None


@pytest.mark.anyio
@pytest.mark.parametrize("script", [b"#!/bin/sh\necho hello\n", b"#!/bin/sh\nexit 3\n"])
async def test_a_program_that_is_no_codex_is_refused(tmp_path, script):
    binary = executable(tmp_path / "codex", script)

    with pytest.raises(CodexUnavailable, match="no Codex version") as caught:
        await codex_version(binary)

    assert caught.value.hint


@pytest.mark.anyio
async def test_a_program_that_cannot_be_run_is_refused(tmp_path):
    with pytest.raises(CodexUnavailable, match="cannot be run"):
        await codex_version(tmp_path / "missing")


def test_an_old_version_is_refused_with_the_fix():
    with pytest.raises(CodexUnavailable, match=r"0\.162\.9 is too old") as caught:
        check_version(Version(0, 162, 9))

    assert "upgrade" in caught.value.hint


def test_a_version_newer_than_the_tested_ones_is_used_with_a_note():
    note = check_version(Version(1, 0, 0))

    assert note is not None
    assert "1.0.0" in note
