"""Which messages Codex takes as they are."""

from __future__ import annotations

from dispatch_core.errors import ValidationFailed

TEXT_LIMIT = 1_048_576  # characters Codex takes in one message


def check_text(text: str) -> None:
    """Raise ValidationFailed for text that Codex would refuse, drop or misread."""
    if not text.strip():
        raise ValidationFailed(
            "the message is empty", hint="give some text, or - to read it from stdin"
        )
    if len(text) > TEXT_LIMIT:
        raise ValidationFailed(
            f"the message has {len(text):,} characters; Codex takes {TEXT_LIMIT:,}",
            hint="put the text in a file and name the file in the message",
        )
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise ValidationFailed(
            "the message contains a lone surrogate, which is not valid Unicode",
            hint="save the text as UTF-8",
        )
    if text.lstrip().startswith("/goal"):
        raise ValidationFailed(
            "a message that starts with /goal does not set a goal", hint="say it in other words"
        )
