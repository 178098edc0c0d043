"""The steps of the hub's tables, see `_sql/migrate.py`."""

from __future__ import annotations

__all__: list[str] = []
