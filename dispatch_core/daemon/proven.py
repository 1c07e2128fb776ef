"""The versions of Codex of which it is known that they store a message before they ask the model.

Only then does it follow from a history without a message that the message has not run. ``dispatch conformance codex`` finds it
out for the version that is installed.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# Each by 150 kills at the moment the model was asked, and as many at random moments.
SHIPPED = frozenset({"0.163.0", "0.169.0"})
FILE = "conformance.json"
ENOUGH = 100  # rounds that a result must have to be kept


class ProvenVersions:
    """What is shipped and what was found out here, in ``conformance.json`` of the home."""

    def __init__(self, home: str | Path) -> None:
        self._path = Path(home) / FILE

    def __contains__(self, version: object) -> bool:
        found = self._read().get(str(version))
        if isinstance(found, dict):
            return found.get("passed") is True  # what was found out here counts more
        return version in SHIPPED

    def record(self, version: str, result: dict[str, Any]) -> None:
        """Keep what a run found out of a version: {"passed": bool, ...}."""
        content = {**self._read(), version: result}
        text = json.dumps(content, indent=2) + "\n"
        fresh = self._path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self._path)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, OSError) as error:
            log.warning("%s is not readable and is ignored: %s", self._path, error)
            return {}
        return content if isinstance(content, dict) else {}
