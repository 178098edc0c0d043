"""Task hubs on Azure Storage, in the layout of DurableTask.AzureStorage."""

from __future__ import annotations

__all__: list[str] = []
