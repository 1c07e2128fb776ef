"""``dispatch completion``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dispatch_plugins.cli.names import PROGRAM

if TYPE_CHECKING:
    from dispatch_plugins.cli.app import App

VARIABLE = "_DISPATCH_COMPLETE"
HELP = f"""Print the completion script of a shell.

\b
bash: eval "$({PROGRAM} completion bash)" in ~/.bashrc
zsh:  eval "$({PROGRAM} completion zsh)" in ~/.zshrc, after compinit
fish: {PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish
"""


def command(app: App) -> click.Command:
    """Return the command."""

    @click.command("completion", help=HELP)
    @click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
    @click.pass_context
    def completion(context: click.Context, shell: str) -> int:
        from click.shell_completion import get_completion_class

        from dispatch_plugins.cli import shells

        shells.install()
        app.settle(context)
        script = get_completion_class(shell)
        root = context.find_root().command
        if script is not None:
            app.print_help(script(root, {}, PROGRAM, VARIABLE).source())
        return 0

    return completion
