"""What the entry point refers to: the provider, where its client libraries are installed.

Where they are not, loading it fails as for any provider whose extra is missing, and nobody chooses it by himself.
"""

from __future__ import annotations

from importlib.util import find_spec

from durable_host_providers.azure_storage.provider import provider

__all__ = ["provider"]


def _is_missing(module: str) -> bool:
    try:
        return find_spec(module) is None
    except ModuleNotFoundError:  # its parent is missing
        return True


for _module in ("azure.data.tables", "azure.storage.blob", "azure.storage.queue"):
    if _is_missing(_module):
        raise ImportError(f"{_module} is missing; install durable-host[azure]")
