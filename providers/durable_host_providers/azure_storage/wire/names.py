"""Which names a hub may have on Azure Storage. Source: azure-storage-task-hub.md 1.2."""

from __future__ import annotations

__all__ = ["MAX_HUB_NAME", "MIN_HUB_NAME", "hub_name_problem"]

MAX_HUB_NAME = 45
"""The reference takes 50, but fails at the first large message of a longer name than 49, and advertises 45."""

MIN_HUB_NAME = 3
"""As queues and containers need it."""


def hub_name_problem(hub: str) -> str | None:
    """Why a configured name cannot be used, as the end of a sentence about it; None: it can."""
    if not MIN_HUB_NAME <= len(hub) <= MAX_HUB_NAME:
        return f"it has {len(hub)} characters, {MIN_HUB_NAME} to {MAX_HUB_NAME} are allowed"
    if not hub[0].isascii() or not hub[0].isalpha():
        return f"it starts with {hub[0]!r}; it must start with one of A-Z and a-z"
    for character in hub:
        if not (character.isascii() and character.isalnum()):
            return f"it contains {character!r}; only A-Z, a-z and 0-9 are allowed"
    return None
