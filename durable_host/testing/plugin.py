"""Pytest fixtures for users' own orchestrator tests."""

from __future__ import annotations

__all__: list[str] = []
