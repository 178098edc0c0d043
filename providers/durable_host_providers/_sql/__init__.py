"""What stores on SQL databases share: named statements, rows of the model, query filters, migrations."""

from __future__ import annotations

__all__: list[str] = []
