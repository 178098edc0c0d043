"""The tables and functions of a schema, one script after another."""

from __future__ import annotations

__all__: list[str] = []
