"""The console entries: read the manifest, hand over to the surface that the command line names.

Standard library only, and as little of it as possible: every command pays for what is imported here.
"""

from __future__ import annotations

import os
import sys

from dispatch_core import __version__

TYPE_CHECKING = False  # typing costs more than the rest of this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Manifest = dict[str, Any]
    Main = Callable[[list[str], Manifest], int]

CLI = "dispatch_plugins.cli.main:main"  # by name: the kernel imports no plugin
VALUE_OPTIONS = ("--color",)
INTERRUPTED = 130
PIPE_CLOSED = 141
PLUGIN_FAULT = 13


def main(argv: list[str] | None = None) -> int:
    """Run ``dispatch`` and return its exit status: 130 when interrupted, 141 when the reader of the output went away."""
    args = sys.argv[1:] if argv is None else argv
    try:
        status = _run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; there it must find a reader.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return status


def first_word(argv: list[str]) -> str | None:
    """Return the first word of the command, after the options that stand before it."""
    value_follows = False
    for word in argv:
        if value_follows:
            value_follows = False
        elif word == "--":
            return None
        elif word.startswith("-"):
            value_follows = word in VALUE_OPTIONS
        else:
            return word
    return None


def _run(argv: list[str]) -> int:
    word = first_word(argv)
    before = argv[: argv.index(word)] if word is not None else argv
    if "--version" in before:
        sys.stdout.write(f"dispatch {__version__}\n")
        return 0
    if "--safe" in before:
        os.environ["DISPATCH_SAFE"] = "1"  # the daemon that may be started is to be safe as well
    manifest = _manifest()
    return _surface(word, manifest)(argv, manifest)


def _manifest() -> Manifest:
    """Return the manifest; when it cannot be built, an empty one that says why, for the commands that need no op."""
    from dispatch_core.daemon.paths import Paths

    try:
        from dispatch_core.plugin import manifest
        from dispatch_core.switches import safe_mode

        return manifest.load(Paths.from_env(os.environ), safe=safe_mode(os.environ))
    except Exception as error:  # noqa: BLE001 -- reported by the command
        # The border that keeps `down` and `plugins` working: whatever is wrong with the manifest is reported by the command.
        return {
            "key": None,
            "version": __version__,
            "ops": [],
            "surfaces": [],
            "kinds": [],
            "plugins": [],
            "error": _as_dict(error),
        }


def _as_dict(error: Exception) -> dict[str, Any]:
    from dispatch_core.errors import DispatchError

    if isinstance(error, DispatchError):
        return error.to_dict()
    return DispatchError(
        f"the list of commands cannot be built: {type(error).__name__}: {error}",
        hint="dispatch --safe leaves third-party plugins out; dispatch --debug COMMAND shows the traceback",
    ).to_dict()


def _surface(word: str | None, manifest: Manifest) -> Main:
    found: Main
    for surface in manifest["surfaces"]:
        if surface["name"] == word and surface["process"]:
            try:
                found = _entry(surface["process"])
            except Exception as error:  # noqa: BLE001 -- the border to a plugin: the command line goes on without it
                return _broken(surface, error)
            return found
    found = _entry(CLI)
    return found


def _broken(surface: dict[str, Any], error: Exception) -> Main:
    """Return what runs in place of a surface that cannot be imported."""

    def report(argv: list[str], manifest: Manifest) -> int:  # noqa: ARG001 -- the form of every surface
        sys.stderr.write(
            f"dispatch: plugin {surface['plugin']} ({surface['dist']}): surface {surface['name']} cannot be "
            f"loaded: {type(error).__name__}: {error}\nhint: dispatch plugins show {surface['plugin']}\n"
        )
        return PLUGIN_FAULT

    return report


def _entry(path: str) -> Any:
    """Return what "module:function" names; importlib itself would cost more than this."""
    module, _, function = path.partition(":")
    __import__(module)
    return getattr(sys.modules[module], function)


if __name__ == "__main__":
    sys.exit(main())
