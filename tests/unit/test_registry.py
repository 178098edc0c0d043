from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Collection, Sequence

import pytest

from durable_host.environment import Environment
from durable_host.errors import ConfigurationError
from durable_host.storage import registry
from durable_host.storage.choice import StorageChoice, choose_storage
from durable_host.storage.contract import OpenedProvider, StorageOptions
from durable_host.storage.registry import find_provider, load_provider, provider_for_url, provider_names, providers


class _Provider:
    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def schemes(self) -> Collection[str]:
        return {self._name.lower()}

    def problems(self, options: StorageOptions) -> Sequence[str]:
        return ()

    def open(self, options: StorageOptions, environment: Environment) -> OpenedProvider:
        raise NotImplementedError


memory = _Provider("memory")
azure = _Provider("azureStorage")
elsewhere = _Provider("elsewhere")


def sqlite() -> _Provider:
    return _Provider("sqlite")


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def put(**targets: str) -> None:
        entries = [importlib.metadata.EntryPoint(name, value, registry.GROUP) for name, value in targets.items()]

        def entry_points(*, group: str) -> list[importlib.metadata.EntryPoint]:
            return entries

        monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)

    put(memory=f"{__name__}:memory", sqlite=f"{__name__}:sqlite")
    return put


@pytest.fixture(autouse=True)
def _this_module_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())


def _this_module() -> object:
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(memory=memory, sqlite=sqlite, azure=azure, elsewhere=elsewhere)
    return module


def test_names_ignore_case_and_values_may_be_factories(install: Callable[..., None]) -> None:
    assert provider_names() == ("memory", "sqlite")
    assert load_provider("SQLite").name == "sqlite"
    assert load_provider("Memory").name == "memory"
    assert sorted(providers()) == ["memory", "sqlite"]
    assert find_provider("postgres") is None


def test_an_unknown_provider_lists_those_that_exist(install: Callable[..., None]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_provider("postgres")

    assert str(caught.value) == (
        "extensions.durableTask.storageProvider.type is 'postgres'; known providers: memory, sqlite. "
        "Install an extra or fix the name."
    )


@pytest.mark.parametrize("name", ["mssql", "Netherite"])
def test_what_will_not_come_is_refused_with_the_alternatives(install: Callable[..., None], name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"not supported\. Use one of: memory, sqlite\."):
        load_provider(name)


def test_a_provider_that_cannot_be_imported_says_so(install: Callable[..., None]) -> None:
    install(broken="no_such_module_anywhere:provider")

    with pytest.raises(ConfigurationError, match=r"'broken'.*cannot be loaded"):
        load_provider("broken")


def test_urls_choose_by_scheme(install: Callable[..., None]) -> None:
    assert provider_for_url("sqlite:///x.db").name == "sqlite"
    with pytest.raises(ConfigurationError, match="known schemes: memory, sqlite"):
        provider_for_url("redis://x")


def test_a_provider_that_cannot_be_imported_is_in_nobodys_way(install: Callable[..., None]) -> None:
    install(broken="no_such_module_anywhere:provider", sqlite=f"{__name__}:sqlite")

    assert provider_for_url("sqlite:///x.db").name == "sqlite"
    with pytest.raises(
        ConfigurationError, match=r"scheme 'broken'; known schemes: sqlite\. .*'broken'.*cannot be loaded"
    ):
        provider_for_url("broken://user:s3cret@x")


def test_an_address_that_nobody_knows_is_not_repeated_with_its_password(install: Callable[..., None]) -> None:
    with pytest.raises(ConfigurationError, match="scheme 'redis'") as caught:
        provider_for_url("redis://user:s3cret@x")

    assert "s3cret" not in str(caught.value)


def _choose(
    override: str | None = None, storage_type: str | None = None, connected: bool = False, **settings: object
) -> StorageChoice:
    return choose_storage(
        override=override, storage_type=storage_type, settings=settings, has_connection=lambda name: connected
    )


def test_the_command_line_beats_host_json_and_its_settings(install: Callable[..., None]) -> None:
    choice = _choose("memory", "sqlite", path="x.db")

    assert (choice.provider.name, choice.settings, choice.automatic) == ("memory", {}, False)
    assert _choose("sqlite", "SQLite", path="x.db").settings == {"path": "x.db"}
    assert _choose("sqlite:///y.db").url == "sqlite:///y.db"
    with pytest.raises(ConfigurationError, match="--storage is 'nope'"):
        _choose("nope")


def test_the_reason_names_what_named_the_type() -> None:
    def chosen(storage_type: str, **named: str) -> StorageChoice:
        return choose_storage(
            override=None, storage_type=storage_type, settings={}, has_connection=lambda name: False, **named
        )

    assert chosen("memory").reason == "host.json says so"
    assert chosen("memory", named_by="VARIABLE").reason == "VARIABLE says so"
    with pytest.raises(
        ConfigurationError, match=r"^VARIABLE \(extensions\.durableTask\.storageProvider\.type\) is 'x'"
    ):
        chosen("x", named_by="VARIABLE")


def test_without_a_type_the_choice_is_automatic_and_says_why(install: Callable[..., None]) -> None:
    choice = _choose()
    assert (choice.provider.name, choice.automatic) == ("sqlite", True)
    assert choice.reason == "host.json names none and AzureWebJobsStorage is not set"

    assert "no provider for Azure Storage is installed" in _choose(connected=True).reason

    install(azureStorage=f"{__name__}:azure", sqlite=f"{__name__}:sqlite")
    choice = _choose(connected=True)
    assert (choice.provider.name, choice.automatic, choice.reason) == (
        "azureStorage",
        True,
        "AzureWebJobsStorage is set",
    )
    assert _choose().provider.name == "sqlite"


def test_settings_of_azure_storage_stay_behind_elsewhere(install: Callable[..., None]) -> None:
    choice = _choose(None, "sqlite", path="x.db", PartitionCount=4)

    assert (choice.settings, choice.ignored) == ({"path": "x.db"}, ("PartitionCount",))
    install(azureStorage=f"{__name__}:azure")
    assert _choose(None, "AzureStorage", partitionCount=4).settings == {"partitionCount": 4}


def test_the_name_of_a_connection_is_for_the_provider_that_host_json_names(install: Callable[..., None]) -> None:
    install(elsewhere=f"{__name__}:elsewhere", sqlite=f"{__name__}:sqlite")
    assert _choose(None, "elsewhere", connectionName="Orders").settings == {"connectionName": "Orders"}
    assert _choose("elsewhere", "Elsewhere", connectionName="Orders").settings == {"connectionName": "Orders"}
    # Nobody says that it is not the one of Azure Storage.
    assert _choose("elsewhere", None, connectionName="Orders").ignored == ("connectionName",)
    assert _choose(None, "sqlite", connectionName="Orders").ignored == ("connectionName",)
