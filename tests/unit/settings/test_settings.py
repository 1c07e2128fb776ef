"""A configuration that cannot be used is refused by file and key."""

from __future__ import annotations

import os
import stat

import pytest

from dispatch_core.errors import ValidationFailed
from dispatch_core.settings import (
    SIZE_LIMIT,
    CodexSection,
    DaemonSection,
    PluginsSection,
    PluginSwitches,
    Settings,
)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "config.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_without_a_file_everything_has_its_default(tmp_path):
    settings = Settings.read(tmp_path / "none.toml")

    assert settings.section("codex", CodexSection).bin is None
    assert settings.section("daemon", DaemonSection).grace == 30.0


def test_a_file_with_a_byte_order_mark_is_read(write):
    settings = Settings.read(write(b"\xef\xbb\xbf[daemon]\ngrace = 5\n"))

    assert settings.section("daemon", DaemonSection).grace == 5.0


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("[daemon]\ngrace = -1\n", "daemon.grace"),
        ("[daemon]\ngrace = 'long'\n", "daemon.grace"),
        ("[daemon]\ngarce = 1\n", "daemon.garce"),
        ("daemon = 3\n", "daemon"),
        ("[daemon]\nlog_bytes = 1\n", "daemon.log_bytes"),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_key(write, content, key):
    path = write(content)

    with pytest.raises(ValidationFailed) as caught:
        Settings.read(path).section("daemon", DaemonSection)

    assert caught.value.message.startswith(f"{path}: {key}: ")
    assert caught.value.details["key"] == key
    assert str(path) in caught.value.hint


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[daemon\n", "line 1"),
        (b"\xff\xfe", "not valid TOML"),
        ("x = 1\nx = 2\n", "line 2"),
        ("#" + "x" * SIZE_LIMIT, "larger than"),
    ],
)
def test_a_file_that_is_no_toml_is_refused_by_name_and_place(write, content, says):
    path = write(content)

    with pytest.raises(ValidationFailed) as caught:
        Settings.read(path)

    assert str(path) in caught.value.message
    assert says in caught.value.message


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path, make):
    path = tmp_path / "config.toml"
    make(path)

    with pytest.raises(ValidationFailed, match="not a file"):
        Settings.read(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(write):
    path = write("")
    path.chmod(stat.S_IWUSR)

    with pytest.raises(ValidationFailed, match="cannot read"):
        Settings.read(path)


def test_the_environment_adds_to_the_switches(write):
    settings = Settings.read(
        write('[plugins]\ndisable = ["a*"]\nmode = "listed"\nenable = ["b"]\n')
    )
    env = {"DISPATCH_PLUGINS_DISABLE": " c , ,d", "DISPATCH_STRICT_PLUGINS": "Yes"}

    switches = PluginSwitches(settings, env)

    assert switches.disable == ("a*", "c", "d")
    assert (switches.mode, switches.enable) == ("listed", ("b",))
    assert not switches.safe


def test_safe_mode_works_with_broken_plugin_settings(write):
    settings = Settings.read(write("plugins = 3\n"))

    with pytest.raises(ValidationFailed):
        settings.section("plugins", PluginsSection)
    assert PluginSwitches(settings, {"DISPATCH_SAFE": "1"}).safe
