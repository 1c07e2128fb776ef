"""Texts in files: read whole, bounded, and known to be UTF-8."""

from __future__ import annotations

from stat import S_ISREG
from typing import TYPE_CHECKING

from dispatch_core.config.keys import TEXT_LIMIT
from dispatch_core.errors import ValidationFailed

if TYPE_CHECKING:
    from pathlib import Path

BYTES_LIMIT = 4 * TEXT_LIMIT  # a character takes at most four bytes


def read_file(path: Path, what: str) -> bytes:
    """Return what a file holds. what: the key or option it was named by, for errors.

    Raises ValidationFailed naming the file when it is missing, no file, unreadable or too large.
    """
    try:
        if not S_ISREG(path.stat().st_mode):  # to read a pipe would wait for ever
            raise ValidationFailed(
                f"{what}: {path} is not a file", hint="name a text file", details={"field": what}
            )
        with path.open("rb") as file:
            data = file.read(BYTES_LIMIT + 1)
    except OSError as error:
        raise ValidationFailed(
            f"{what}: cannot read {path}: {error.strerror}",
            hint="name a file that can be read",
            details={"field": what, "path": str(path)},
        ) from error
    if len(data) > BYTES_LIMIT:
        raise ValidationFailed(
            f"{what}: {path} is larger than {BYTES_LIMIT:,} bytes",
            hint="name a smaller file",
            details={"field": what, "path": str(path)},
        )
    return data


def decode(data: bytes, path: Path, what: str) -> str:
    """Return the text of a file that was read. Raises ValidationFailed, with the place, for what is no UTF-8 text."""
    problem = None
    text = ""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
    if "\0" in text:
        problem = f"is a binary file: there is a NUL at character {text.index(chr(0))}"
    elif problem is None and not text.strip():
        problem = "is empty"
    elif len(text) > TEXT_LIMIT:
        problem = f"has {len(text):,} characters; {TEXT_LIMIT:,} are allowed"
    if problem is not None:
        raise ValidationFailed(
            f"{what}: {path} {problem}",
            hint="name a text file in UTF-8",
            details={"field": what, "path": str(path)},
        )
    return text
