"""What Codex sends is known by name."""

from __future__ import annotations

import json

from dispatch_core.appserver.client import OPT_OUT
from dispatch_core.appserver.notices import NOTICES


def test_every_notification_of_the_installed_codex_is_known(schema_dir):
    schema = json.loads((schema_dir / "ServerNotification.json").read_text())
    sent = {part["properties"]["method"]["enum"][0] for part in schema["oneOf"]}

    assert len(sent) > 50
    assert sent - NOTICES == set()
    assert set(OPT_OUT) <= NOTICES
