"""The CODEX_HOME of offline mode: one provider, on loopback, and nothing that reaches further."""

from __future__ import annotations

import json
import os
import tempfile
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

# The name is stored in every session, so it must not change: a session resumes with the provider it
# began with.
PROVIDER = "offline"
DEFAULT_MODEL = "offline-model"
LOOPBACK = "127.0.0.1"
MARK = "# Written by dispatch for offline mode; changes are overwritten."

_CONFIG = """\
{mark}
model = "{model}"
model_provider = "{provider}"
model_catalog_json = {catalog}
approval_policy = "on-request"
sandbox_mode = "workspace-write"
check_for_update_on_startup = false

[model_providers.{provider}]
name = "Offline model"
base_url = {base_url}
wire_api = "responses"
requires_openai_auth = false
supports_websockets = false
request_max_retries = 1
stream_max_retries = 1

# With any of the first three on, Codex contacts hosts on the network when it starts. A shell
# snapshot is a login shell per thread: slow, and it brings the user's own environment into a
# demonstration.
[features]
plugins = false
remote_plugin = false
apps = false
shell_snapshot = false

[analytics]
enabled = false

[feedback]
enabled = false

[otel]
exporter = "none"
"""


def write_codex_home(directory: Path, base_url: str) -> None:
    """Make a directory a Codex home whose only model provider is at base_url; sessions in it stay.

    directory: created if missing, 0700 afterwards. base_url: as OfflineModel.base_url. Each file is
    replaced whole, and only when its content changes. Raises ValidationFailed if the directory
    holds a configuration that is not ours, and OSError if it cannot be written.
    """
    directory = directory.absolute()
    config = directory / "config.toml"
    catalog = directory / "models.json"
    text = _CONFIG.format(
        mark=MARK,
        model=DEFAULT_MODEL,
        provider=PROVIDER,
        catalog=_toml_string(str(catalog)),
        base_url=_toml_string(base_url),
    )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_foreign(config)
    directory.chmod(0o700)
    # The catalog first: a configuration never names a file that is not there.
    _replace(catalog, resources.files("dispatch_core.offline").joinpath("models.json").read_bytes())
    _replace(config, text.encode())


def offline_environ(directory: Path, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the inherited environment for a Codex in this home that reaches loopback directly.

    Codex sends even requests to 127.0.0.1 through HTTP_PROXY, unless NO_PROXY exempts the address.
    """
    exempt = [inherited[name] for name in ("NO_PROXY", "no_proxy") if inherited.get(name)]
    direct = ",".join([LOOPBACK, *exempt])
    home = str(directory.absolute())
    return {**inherited, "CODEX_HOME": home, "NO_PROXY": direct, "no_proxy": direct}


def _refuse_foreign(config: Path) -> None:
    if config.exists() and not config.read_bytes().startswith(MARK.encode()):
        raise ValidationFailed(
            f"{config} was not written by dispatch, so offline mode does not overwrite it",
            hint="use another directory as the offline Codex home, or move that file away",
            details={"path": str(config)},
        )


def _replace(path: Path, content: bytes) -> None:
    if path.exists() and path.read_bytes() == content:
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _toml_string(text: str) -> str:
    """Return a TOML basic string: JSON's escapes are TOML's, except that DEL needs one too."""
    if not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValidationFailed(
            f"{text!r} is not valid Unicode, so it cannot be written to a configuration file",
            hint="use a path whose name is UTF-8",
        )
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
