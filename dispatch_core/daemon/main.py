"""``dispatchd``: the lock, the log and the exit status. Light until the lock is held; ``assembly`` is the daemon."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dispatch_core.daemon.lock import hold, private_directory
from dispatch_core.daemon.paths import READY_FD, Paths
from dispatch_core.daemon.startup import SERVICE_VARIABLES, Launch, ReadyPipe
from dispatch_core.errors import DispatchError
from dispatch_core.switches import is_on, safe_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

USAGE = "usage: dispatchd run|check [--offline] [--safe]"
VERBS = {"run", "check"}
PRIVATE = {READY_FD, *SERVICE_VARIABLES}  # between us and whoever started us: no business of Codex


def main(argv: list[str] | None = None) -> int:
    """Run the daemon in the foreground, or check that it could run, and return the exit status.

    check: neither the lock nor anything that is stored is touched; an error is one JSON object on stdout.
    """
    words = sys.argv[1:] if argv is None else argv
    if not VERBS & set(words[:1]) or not set(words[1:]) <= {"--offline", "--safe"}:
        sys.stderr.write(
            f"{USAGE}\nTo start it in the background: dispatch up\ncheck only looks whether it could start.\n"
        )
        return 0 if words[:1] in (["--help"], ["-h"]) else 2
    ready = ReadyPipe(os.environ)
    run = _check if words[0] == "check" else _run
    try:
        return run(words, Paths.from_env(os.environ), ready)
    except DispatchError as error:
        ready.say({"error": error.to_dict()})
        if run is _check:
            sys.stdout.write(json.dumps({"error": error.to_dict()}) + "\n")
        sys.stderr.write(f"dispatchd: {error.message}\n")
        if error.hint:
            sys.stderr.write(f"  hint: {error.hint}\n")
        return error.projection.exit_code


def _run(words: list[str], paths: Paths, ready: ReadyPipe) -> int:
    os.umask(0o077)
    private_directory(paths.home)
    private_directory(Path(paths.socket).parent)
    with hold(paths.lock), _started_fast():
        # Imported for start-up, after what makes it fast; a second daemon does not get here.
        from dispatch_core import failpoints  # noqa: PLC0415
        from dispatch_core.daemon import assembly, logs  # noqa: PLC0415
        from dispatch_core.settings import DaemonSection, Settings  # noqa: PLC0415

        launch = _launch(words, paths)
        failpoints.arm(launch.env)
        settings = Settings.read(paths.config)
        daemon = settings.section("daemon", DaemonSection)
        handler = logs.configure(paths.log, max_bytes=daemon.log_bytes)
        try:
            assembly.run(launch, settings, ready)
        except DispatchError as error:
            log.error("the daemon ends: %s", error)  # noqa: TRY400 -- a reason, not a crash
            raise
        except Exception:
            log.exception("the daemon ends")
            raise
        finally:
            log.info("stopped")
            handler.close()
    return 0


def _check(words: list[str], paths: Paths, ready: ReadyPipe) -> int:
    from dispatch_core.daemon import assembly  # noqa: PLC0415 -- for start-up
    from dispatch_core.settings import Settings  # noqa: PLC0415

    assembly.check(_launch(words, paths), Settings.read(paths.config))
    ready.say({"ready": True})
    return 0


def _launch(words: list[str], paths: Paths) -> Launch:
    env = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    return Launch(
        paths=paths,
        env=env,
        offline="--offline" in words or is_on(env.get("DISPATCH_OFFLINE")),
        safe="--safe" in words or safe_mode(env),
    )


@contextmanager
def _started_fast() -> Iterator[None]:
    """Leave out of the start what takes time and finds nothing; the daemon turns the collector on again once it is ready.

    What is imported lives as long as the process, so there is no garbage to look for. pydantic searches all installed
    distributions for plugins of its own.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def entry() -> None:
    """End the process with the status of ``main``, at once: a plugin may have left a thread behind that never ends."""
    status = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    entry()
