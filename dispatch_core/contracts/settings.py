"""What a plugin sees of the configuration: its own table and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from pydantic import BaseModel

M = TypeVar("M", bound="BaseModel")


class PluginSettings(Protocol):
    """Passed to every hook."""

    def section(self, name: str, model: type[M]) -> M:
        """Return the table ``[name]`` of the configuration file, validated; an absent table is an empty one.

        Raises ValidationFailed naming the file, the key and what was wrong.
        """
        ...
