"""Task hubs on Azure Storage, in the layout of DurableTask.AzureStorage.

`provider` is what the entry point names. The client libraries are imported when a hub is opened, not before.
"""

from __future__ import annotations

from durable_host_providers.azure_storage.provider import AzureStorageProvider, provider

__all__ = ["AzureStorageProvider", "provider"]
