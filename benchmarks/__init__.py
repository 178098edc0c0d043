"""Workloads W1 to W7, run against a provider of ours and against a peer; see README.md beside this file."""

from __future__ import annotations

__all__: list[str] = []
