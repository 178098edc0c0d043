"""Puts partition management together: the kind of manager, the app lease above it, and this process's name."""

from __future__ import annotations

import platform
from collections.abc import Callable

from durable_host.environment import Environment
from durable_host.storage.contract import AppLeaseOptions
from durable_host_providers.azure_storage.app_lease import AppLease, LeasedPartitions
from durable_host_providers.azure_storage.blob_partitions import LegacyPartitionManager, SafePartitionManager
from durable_host_providers.azure_storage.hub import TaskHub
from durable_host_providers.azure_storage.layout import Layout
from durable_host_providers.azure_storage.partitions import (
    ManagerKind,
    PartitionContext,
    PartitionListener,
    PartitionManager,
    PartitionSettings,
    never,
)
from durable_host_providers.azure_storage.ports import StorageAccount
from durable_host_providers.azure_storage.table_partitions import TablePartitionManager

__all__ = ["partition_runs", "worker_id"]


def worker_id(environment: Environment, setting: Callable[[str], str | None] = lambda name: None) -> str:
    """The name under which this process owns partitions: the reference's, and something that no other process has.

    Two processes under one name would take each other's partitions for their own (9.2 item 13).
    """
    stamp, instance = setting("WEBSITE_CURRENT_STAMPNAME"), setting("RoleInstanceId")
    name = f"{stamp}:{instance}" if stamp and instance else platform.node() or "host"
    return f"{name}-{environment.ids.new_id()[:12]}"


def partition_runs(
    hub: TaskHub,
    account: StorageAccount,
    layout: Layout,
    kind: ManagerKind,
    me: str,
    environment: Environment,
    *,
    app: str = "",
    app_lease: AppLeaseOptions | None = None,
    settings: PartitionSettings | None = None,
) -> Callable[[PartitionListener], PartitionManager]:
    """What makes runs of partition management, each for one life of a store.

    Args:
        account: where the control queues are.
        me: see `worker_id`.
        app: `WEBSITE_SITE_NAME`, or empty; its hosts hold the app lease together.
    """
    options = app_lease or AppLeaseOptions()

    def run(listener: PartitionListener) -> PartitionManager:
        def make(fence: Callable[[], float]) -> PartitionManager:
            context = PartitionContext(
                account, layout.control_queues, me, listener, environment, settings or PartitionSettings(), fence
            )
            match kind:
                case ManagerKind.TABLE:
                    return TablePartitionManager(context, hub.partitions)
                case ManagerKind.SAFE:
                    return SafePartitionManager(context, hub.leases)
                case ManagerKind.LEGACY:
                    return LegacyPartitionManager(context, hub.leases)

        if not options.use:
            return make(never)
        return LeasedPartitions(
            AppLease(hub.app_lease, hub.app_lease_info, app, environment, options), make, environment
        )

    return run
