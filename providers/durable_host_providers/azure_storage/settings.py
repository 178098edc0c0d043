"""`storageProvider` of host.json for Azure Storage. Source: azure-storage-task-hub.md 7.2, same names and defaults."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from durable_host_providers.azure_storage.layout import Layout

__all__ = ["AzureSettings"]


class AzureSettings(msgspec.Struct, frozen=True):
    """How this host uses a hub.

    Attributes:
        batch_size: messages of one look into a control queue.
        buffer_threshold: no look into a control queue while so many instances wait in memory.
        control_visibility_s, work_item_visibility_s: how long what was fetched is nobody else's, unless renewed.
        hand_over_s: the same for what this process put for itself.
        max_polling: longest pause between two looks into a queue.
        base64: write queue texts in Base64, as older workers need it.
        fetch_large: follow the references of large inputs and outputs when a status is asked for.
        known: of how many instances the last committed position is remembered.
    """

    layout: Layout
    batch_size: int = 32
    buffer_threshold: int = 256
    control_visibility_s: int = 300
    work_item_visibility_s: int = 300
    hand_over_s: int = 30
    max_polling: timedelta = timedelta(seconds=30)
    base64: bool = False
    fetch_large: bool = True
    known: int = 10_000
