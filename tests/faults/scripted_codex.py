"""An app-server that does what the real one cannot be made to do, over the real protocol.

How it starts is told by SCRIPT_START in the environment; afterwards each request says it itself: ``params.do`` is a list of
actions, done in order. A request without it is answered with its own params. SCRIPT_SAYS: a file it writes out once greeted.
SCRIPT_TELLS: a file for the answers it was given, written at the end.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

BLOCK = b"x" * (1 << 20)


def write(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def send(message):
    write(json.dumps(message).encode() + b"\n")


class Script:
    def __init__(self):
        self.held = []
        self.answers = {}
        self.rng = random.Random(1)

    def serve(self):
        while line := sys.stdin.buffer.readline():
            self.take(json.loads(line))
        if path := os.environ.get("SCRIPT_TELLS"):
            Path(path).write_text(json.dumps(self.counted()))

    def take(self, message):
        if "method" not in message:
            self.answers[message["id"]] = message
        elif message["method"] == "initialize":
            send({"id": message["id"], "result": {"userAgent": "x", "codexHome": "/nowhere"}})
        elif message["method"] == "initialized":
            if path := os.environ.get("SCRIPT_SAYS"):
                write(Path(path).read_bytes())
        elif "id" in message:
            params = message["params"]
            for action, *rest in params.get("do", [["answer", params]]):
                getattr(self, "do_" + action)(message["id"], *rest)

    def counted(self):
        refused = [
            a["id"] for a in self.answers.values() if a.get("error", {}).get("code") == -32601
        ]
        return {"answered": sorted(map(str, self.answers)), "refused": sorted(map(str, refused))}

    def do_answer(self, call_id, result):
        send({"id": call_id, "result": result})

    def do_error(self, call_id, code, text):
        send({"id": call_id, "error": {"code": code, "message": text}})

    def do_storm(self, call_id, tag):
        """Be overloaded for every other request or so."""
        if self.rng.random() < 0.5:
            self.do_error(call_id, -32001, "Server overloaded; retry later.")
        else:
            self.do_answer(call_id, {"tag": tag})

    def do_raw(self, _, text):
        write(text.encode("latin-1"))

    def do_hold(self, call_id, tag):
        self.held.append((call_id, tag))

    def do_muddle(self, call_id, seed, wanted):
        """Answer so many held requests in any order, some more than once, and what nobody asked among it."""
        while len(self.held) < wanted:
            self.take(json.loads(sys.stdin.buffer.readline()))
        rng = random.Random(seed)
        lines = [(i, tag) for i, tag in self.held for _ in range(rng.choice((1, 1, 2, 3)))]
        lines += [(rng.randrange(10**7, 10**8), "nobody") for _ in range(len(self.held) // 4)]
        rng.shuffle(lines)
        for held, tag in lines:
            send({"id": held, "result": {"tag": tag}})
        self.held.clear()
        self.do_answer(call_id, {"sent": len(lines)})

    def do_endless(self, _, megabytes):
        """Write one line that does not end for so long."""
        write(b'{"method":"big","params":{"text":"')
        for _ in range(megabytes):
            write(BLOCK)
        write(b'"}}\n')

    def do_flood(self, _, megabytes):
        """Write small notifications, as fast as they are read."""
        line = (
            json.dumps({"method": "item/started", "params": {"text": "y" * 900}}).encode() + b"\n"
        )
        block = line * 1000
        for _ in range(megabytes * (1 << 20) // len(block)):
            write(block)

    def do_stderr(self, _, megabytes):
        for _ in range(megabytes):
            sys.stderr.buffer.write(BLOCK[:-1] + b"\n")
        sys.stderr.buffer.flush()

    def do_exit(self, _, status):
        os._exit(status)

    def do_crash(self, _):
        os.kill(os.getpid(), signal.SIGSEGV)

    def do_deaf(self, call_id):
        """Read on and answer nothing any more."""
        self.do_answer(call_id, {})
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)


if __name__ == "__main__":
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write("codex-cli 0.163.0\n")
        raise SystemExit(0)
    if starts := os.environ.get("SCRIPT_STARTS"):
        with Path(starts).open("a") as file:
            file.write("x")
    if status := os.environ.get("SCRIPT_START"):
        sys.stderr.write("Error: as it was told\n")
        raise SystemExit(int(status))
    Script().serve()
