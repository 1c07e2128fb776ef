"""Every check, in the order in which they are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatch_plugins.cli.doctor import codex, daemon, home, installation, registry
from dispatch_plugins.cli.doctor.report import Examination

if TYPE_CHECKING:
    from collections.abc import Sequence

CHECKS: Sequence[Examination] = (
    Examination(name="path", look=installation.path),
    Examination(name="python", look=installation.python),
    Examination(name="dispatch", look=installation.version),
    Examination(name="manifest", look=installation.manifest, fix=installation.rebuild_manifest),
    Examination(name="plugins", look=installation.plugins),
    Examination(name="config", look=installation.config),
    Examination(name="trust", look=installation.trust),
    Examination(name="home", look=home.permissions, fix=home.tighten),
    Examination(name="disk", look=home.disk),
    Examination(name="codex_binary", look=codex.binary),
    Examination(name="codex_auth", look=codex.auth),
    Examination(name="app_server", look=codex.app_server),
    Examination(name="daemon", look=daemon.answers, fix=daemon.remove_stale_socket),
    Examination(name="log", look=home.log),
    Examination(name="registry", look=registry.registry),
    Examination(name="index", look=registry.index),
)
