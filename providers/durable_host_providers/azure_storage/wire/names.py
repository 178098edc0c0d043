"""Which names a hub may have, and which one it gets when nobody chose. Source: azure-storage-task-hub.md 1.2."""

from __future__ import annotations

__all__ = ["MAX_HUB_NAME", "MIN_HUB_NAME", "hub_name_problem", "sanitised_hub_name"]

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


def sanitised_hub_name(name: str) -> str:
    """A usable name made of one that nobody chose, for example that of the site.

    Letters and digits of other scripts are kept, as the reference does, and then refused like a configured name.
    """
    kept = "".join(character for character in name if character.isalpha() or character.isdecimal())
    if not kept:
        return "DefaultTaskHub"
    if kept[0].isnumeric():
        kept = f"t{kept}"
    kept = kept[:MAX_HUB_NAME]
    return f"{kept}Hub" if len(kept) < MIN_HUB_NAME else kept
