"""The provider that entry point `durable_host.providers` names `azureStorage`."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError
from durable_host.storage.contract import OpenedProvider, StorageOptions
from durable_host_providers.azure_storage.hub import TaskHub
from durable_host_providers.azure_storage.ownership import partition_runs, worker_id
from durable_host_providers.azure_storage.partitions import PartitionSettings
from durable_host_providers.azure_storage.ports import StorageAccount
from durable_host_providers.azure_storage.settings import Configured, read_settings
from durable_host_providers.azure_storage.split import SplitAccount
from durable_host_providers.azure_storage.store import AzureTaskHubStore

__all__ = ["AzureStorageProvider", "provider"]

_MISSING = "The storage provider azureStorage needs the Azure client libraries; install durable-host[azure]."


class AzureStorageProvider:
    """Task hubs in storage accounts, in the layout of DurableTask.AzureStorage."""

    @property
    def name(self) -> str:
        return "azureStorage"

    @property
    def schemes(self) -> Collection[str]:
        return frozenset({"azurestorage"})

    def problems(self, options: StorageOptions) -> Sequence[str]:
        configured, problems = read_settings(options)
        try:
            from durable_host_providers.azure_storage.credentials import resolve_connection
        except ImportError:
            return [*problems, _MISSING]
        for name in (configured.connection, configured.tracking):
            try:
                if name is not None:
                    resolve_connection(name, options.setting)
            except ConfigurationError as error:
                problems += error.problems
        return problems

    def open(self, options: StorageOptions, environment: Environment) -> OpenedProvider:
        problems = self.problems(options)
        if problems:
            raise ConfigurationError(problems)
        from durable_host_providers.azure_storage.host_state import AzureHostState, host_identity

        configured, _ = read_settings(options)
        account = _account(configured.connection, options, environment)
        place = account
        if configured.tracking is not None:
            place = SplitAccount(account, _account(configured.tracking, options, environment))
        store = _store(place, configured, options, environment)
        host_state = AzureHostState(account, environment, host_identity(options.folder, options.setting))
        return OpenedProvider(store, host_state, place.location)


def _account(name: str, options: StorageOptions, environment: Environment) -> StorageAccount:
    try:
        from durable_host_providers.azure_storage.credentials import resolve_connection
        from durable_host_providers.azure_storage.rest import RestAccount
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    return RestAccount(resolve_connection(name, options.setting), environment)


def _store(
    account: StorageAccount, configured: Configured, options: StorageOptions, environment: Environment
) -> AzureTaskHubStore:
    layout = configured.settings.layout
    app = (options.setting("WEBSITE_SITE_NAME") or "").strip()
    hub = TaskHub(account, layout, configured.manager, environment, app=app, worker=options.worker)
    runs = None
    if options.worker:
        runs = partition_runs(
            hub,
            account,
            layout,
            configured.manager,
            worker_id(environment, options.setting),
            environment,
            app=app,
            app_lease=options.app_lease,
            settings=PartitionSettings(lease=options.lease, time_limit=configured.time_limit),
        )
    return AzureTaskHubStore(account, configured.settings, environment, hub, runs)


provider = AzureStorageProvider()
