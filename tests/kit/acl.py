"""The users of Redis in ``deploy/redis/users.acl``."""

from __future__ import annotations

import re
from pathlib import Path

USERS = Path(__file__).parents[2] / "deploy/redis/users.acl"


def rules_of(user: str) -> list[str]:
    """Return the rules of a user, as the file grants them."""
    [line] = [line for line in USERS.read_text().splitlines() if line.startswith(f"user {user} ")]
    return re.findall(r"\([^)]*\)|\S+", line.removeprefix(f"user {user} "))
