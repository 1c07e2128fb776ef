"""What a thread is called and what it may do, as every op that makes one takes it."""

from __future__ import annotations

from enum import StrEnum

NAME_LIMIT = 100


class Sandbox(StrEnum):
    """What commands of the thread may touch."""

    READ_ONLY = "read-only"
    WORKSPACE_WRITE = "workspace-write"
    DANGER_FULL_ACCESS = "danger-full-access"


class ApprovalPolicy(StrEnum):
    """When Codex asks before it runs a command."""

    UNTRUSTED = "untrusted"
    ON_REQUEST = "on-request"
    NEVER = "never"
