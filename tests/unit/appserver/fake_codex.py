"""A program that speaks the app-server's protocol over real pipes and does what the real one cannot be made to do.

How it starts is told by FAKE_CODEX in the environment. Afterwards it is told by the requests
themselves: ``params.do`` is a list of actions, done in order; a request without it is answered
with its own params.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

OUT = sys.stdout.buffer


def send(message):
    write(json.dumps(message).encode() + b"\n")


def write(data):
    OUT.write(data)
    OUT.flush()


class Fake:
    def __init__(self):
        self.received = []
        self.held = []
        self.tries = 0

    def serve(self):
        for line in sys.stdin.buffer:
            message = json.loads(line)
            self.received.append(message)
            if message.get("method") == "initialize":
                self.greet(message)
            elif message.get("method") == "thread/turns/list" and "do" not in message["params"]:
                turn = {"id": "t", "status": "completed", "items": []}
                send({"id": message["id"], "result": {"data": [turn], "nextCursor": "more"}})
            elif "id" in message and "method" in message:
                self.answer(message)

    def greet(self, message):
        if os.environ.get("FAKE_CODEX") == "refuse":
            error = {"code": -32600, "message": "clients named dispatch are not welcome"}
            send({"id": message["id"], "error": error})
        elif os.environ.get("FAKE_CODEX") == "exit-in-handshake":
            sys.exit("Error: the licence has expired")
        else:
            send(
                {
                    "id": message["id"],
                    "result": {"userAgent": "fake/0.0.1", "codexHome": "/nowhere"},
                }
            )

    def answer(self, message):
        params = message["params"]
        for action, *rest in params.get("do", [["answer", params]]):
            getattr(self, "do_" + action)(message["id"], *rest)

    def do_answer(self, call_id, result):
        send({"id": call_id, "result": result})

    def do_answer_as(self, call_id, offset, result):
        send({"id": call_id + offset, "result": result})

    def do_error(self, call_id, error):
        send({"id": call_id, "error": error})

    def do_overloaded(self, call_id, times):
        """Refuse so many times, then answer with the number of tries."""
        self.tries += 1
        if self.tries <= times:
            self.do_error(call_id, {"code": -32001, "message": "Server overloaded; retry later."})
        else:
            self.do_answer(call_id, {"tries": self.tries})

    def do_hold(self, call_id):
        self.held.append(call_id)

    def do_release_backwards(self, call_id):
        for held in reversed([*self.held, call_id]):
            send({"id": held, "result": {"id": held}})

    def do_received(self, call_id):
        send({"id": call_id, "result": {"messages": self.received}})

    def do_await_answers(self, call_id, count):
        while sum("method" not in message for message in self.received) < count:
            self.received.append(json.loads(sys.stdin.buffer.readline()))
        self.do_received(call_id)

    def do_send(self, _, message):
        send(message)

    def do_raw(self, _, text):
        write(text.encode("latin-1"))

    def do_burst(self, call_id, messages):
        """Write an answer and what follows it in one piece."""
        lines = [{"id": call_id, "result": {"n": 0}}, *messages]
        write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def do_big(self, _, size):
        block = b"x" * (1 << 20)
        write(b'{"method":"big","params":{"text":"')
        for _ in range(size // len(block)):
            write(block)
        write(b'"}}\n')

    def do_stderr(self, _, lines):
        for number in range(lines):
            sys.stderr.write(f"\x1b[31mnoise\x1b[0m {number} {'y' * 80}\n")

    def do_exit(self, _, status):
        sys.exit(status)

    def do_die(self, _):
        os.kill(os.getpid(), signal.SIGKILL)

    def do_stop_reading(self, _):
        os.close(0)
        time.sleep(60)

    def do_deaf(self, call_id):
        """Answer, then never read or write again."""
        send({"id": call_id, "result": {}})
        time.sleep(60)

    def do_close_stdout(self, _):
        os.close(1)
        time.sleep(60)

    def do_leave_child(self, call_id):
        """Leave a child behind that holds the pipes, and end."""
        child = subprocess.Popen(["sleep", "60"], start_new_session=True)
        send({"id": call_id, "result": {"pid": child.pid}})
        os._exit(7)


def main():
    if sys.argv[1:] == ["--version"]:
        print(os.environ.get("FAKE_VERSION", "codex-cli 0.163.0"))
        return
    mode = os.environ.get("FAKE_CODEX")
    if mode == "exit":
        sys.exit("Error: cannot read the stars")
    if mode == "silent":
        sys.stdin.buffer.read()
    if mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            time.sleep(60)
    if mode == "environment":
        send({"env": dict(os.environ), "cwd": str(Path.cwd())})
        return
    Fake().serve()


if __name__ == "__main__":
    main()
