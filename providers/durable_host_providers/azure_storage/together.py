"""Requests that do not depend on each other, made at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

__all__ = ["together"]


async def together(requests: Iterable[Awaitable[object]]) -> None:
    """All of them at once; raises the first failure by their order, after all have ended."""
    for result in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
