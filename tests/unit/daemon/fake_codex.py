"""An app-server that shakes hands and then does what its first argument says, over the real protocol."""

import json
import os
import sys
from pathlib import Path


def write(frame):
    sys.stdout.write(json.dumps(frame) + "\n")
    sys.stdout.flush()


if sys.argv[1:] == ["--version"]:
    sys.stdout.write("codex-cli 0.169.0\n")
    raise SystemExit(0)

mode = os.environ.get("FAKE_CODEX", "")
count = Path(os.environ["FAKE_COUNT"])
starts = len(count.read_text()) if count.exists() else 0
count.write_text("x" * (starts + 1))
if mode == "refuse" or (mode == "refuse-second" and starts == 1):
    sys.stderr.write("Error: no licence\n")
    raise SystemExit(7)

for line in sys.stdin:
    message = json.loads(line)
    if message.get("method") == "initialize":
        write({"id": message["id"], "result": {"userAgent": "fake", "codexHome": "/nowhere"}})
        write(
            {
                "method": "configWarning",
                "params": {
                    "summary": "Invalid configuration; using defaults.",
                    "details": "line 3",
                },
            }
        )
    elif message.get("method") == "die":
        raise SystemExit(9)
    elif "id" in message and "method" in message:
        write({"method": "thread/closed", "params": {"threadId": "t"}})
        write({"id": message["id"], "result": {"echo": message["method"]}})
