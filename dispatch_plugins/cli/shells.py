"""How shells complete: click's scripts for zsh and fish, and one of our own for bash."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

from dispatch_plugins.cli.catalog import quoted

if TYPE_CHECKING:
    from typing import ClassVar

    from click.shell_completion import CompletionItem

# Readline breaks words at @, = and : as well, so bash's own list of words is of no use for handles. The line is handed over as it
# was typed, with the piece of it that readline is going to replace.
SCRIPT = """\
%(complete_func)s() {
    local IFS=$'\\n' completion type value
    COMPREPLY=()
    for completion in $(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_PIECE="$2" \
%(complete_var)s=bash_complete "$1" 2>/dev/null); do
        IFS=',' read -r type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done
}

complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null ||
    complete -F %(complete_func)s %(prog_name)s
"""
QUOTES = ("'", '"')


class Bash(BashComplete):
    """Completion for bash."""

    source_template: ClassVar[str] = SCRIPT

    def source(self) -> str:
        """Return the script; which bash there is, it finds out itself."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the one that is typed, and that one as far as it goes."""
        line = os.environ.get("COMP_LINE")
        if line is None:
            return super().get_completion_args()  # a script that click made
        words = split_arg_string(line)
        typed = "" if line[-1:].isspace() or not words else words.pop()
        return words[1:], typed

    def format_completion(self, item: CompletionItem[str]) -> str:
        """Return type and value, of which only what takes the place of the piece that readline replaces."""
        line = os.environ.get("COMP_LINE")
        if line is None or item.type != "plain":
            return super().format_completion(item)
        piece = os.environ.get("COMP_PIECE", "")
        typed = self.get_completion_args()[1]
        if typed.startswith("-"):
            typed = typed.partition("=")[2] or typed
        before = typed.removesuffix(piece) if typed.endswith(piece) else ""
        value = item.value.removeprefix(before)
        return f"{item.type},{_within(_open_quote(line), value)}"


def _open_quote(line: str) -> str:
    """Return the quotation mark that is open at the end of a line, or nothing."""
    quote, escaped = "", False
    for char in line:
        if escaped:
            escaped = False
        elif char == "\\" and quote != "'":
            escaped = True
        elif quote:
            quote = "" if char == quote else quote
        elif char in QUOTES:
            quote = char
    return quote


def _within(quote: str, value: str) -> str:
    """Return a value as bash reads it back behind a quotation mark: names are other people's text, and must not be run."""
    if quote == "'":
        return value.replace("'", "'\\''")
    if quote == '"':
        value = re.sub(r'([\\$`"])', r"\\\1", value)
        return value.replace("!", "\"'!'\"")  # bash looks for earlier commands even there
    return quoted(value)


def install() -> None:
    """Make click complete for our bash script."""
    add_completion_class(Bash)
