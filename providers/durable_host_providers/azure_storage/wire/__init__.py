"""The wire and storage formats of DurableTask.AzureStorage as pure functions: texts and rows in, model values out.

-   `messages`: queue messages ⇄ `Message` and `ActivityTask`; large ones in blobs (`payloads`).
-   `history_rows`: rows of History, the sentinel included ⇄ events and the version of a history.
-   `instance_rows`: rows of Instances ⇄ `InstanceState`.
-   `filters`: OData filters of queries. `keys`: row keys, control queues, blob names. `names`: names of a hub's parts.

What is ours alone goes into members and columns that .NET ignores; where they are missing their defaults hold.
"""

from __future__ import annotations

__all__: list[str] = []
