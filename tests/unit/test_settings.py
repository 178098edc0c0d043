from __future__ import annotations

import json
from pathlib import Path

import pytest

from durable_host.config.settings import Settings, export, load_local_settings, resolve_percent

_NOTHING: dict[str, str] = {}


def _write(folder: Path, document: object) -> None:
    (folder / "local.settings.json").write_text(json.dumps(document))


def test_values_are_exported_as_texts_unless_defined(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "IsEncrypted": False,
            "Values": {"A": "1", "B": 2, "C": True, "D": None, "": "x", "mine": "file", "K": "@Microsoft.KeyVault(x)"},
            "ConnectionStrings": {"Main": "Server=m", "Other": {"ConnectionString": "o", "ProviderName": "x"}},
            "Host": {"LocalHttpPort": 8080, "LocalHttpAddress": "0.0.0.0"},
        },
    )
    environ = {"MINE": "environment"}

    local = load_local_settings(tmp_path)
    skipped = export(local, environ)

    assert environ == {
        "MINE": "environment",
        "A": "1",
        "B": "2",
        "C": "true",
        "ConnectionStrings__Main": "Server=m",
        "ConnectionStrings__Other": "o",
    }
    assert skipped == ["Skipping 'mine' from local settings as it's already defined in current environment variables."]
    assert (local.port, local.address) == (8080, "0.0.0.0")
    assert local.warnings == (
        "Skipping 'D' because value is null",
        "Skipping local setting with empty key.",
        "Skipping 'K' because Key Vault references are not resolved here.",
    )


def test_the_first_folder_with_a_file_counts_and_none_is_fine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    _write(tmp_path, {"Values": {"A": "parent"}})

    assert load_local_settings(tmp_path / "a", tmp_path).values == {"A": "parent"}
    assert load_local_settings(tmp_path / "a").values == {}


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_an_unreadable_file_is_a_warning_and_no_settings(tmp_path: Path, text: str) -> None:
    (tmp_path / "local.settings.json").write_text(text, encoding="latin-1")

    local = load_local_settings(tmp_path)

    assert local.values == {}
    assert "Ensure it is a valid JSON file." in local.warnings[0]


def test_an_encrypted_file_says_how_to_decrypt_it(tmp_path: Path) -> None:
    _write(tmp_path, {"IsEncrypted": True, "Values": {"A": "xyz"}})

    local = load_local_settings(tmp_path)

    assert local.values == {}
    assert "func settings decrypt" in local.warnings[0]


def test_settings_are_found_without_case_and_by_colon() -> None:
    settings = Settings({"Some__Name": "v", "other": "w"})

    assert settings.get("some:name") == "v"
    assert settings.get("OTHER") == "w"
    assert settings.get("none") is None


def test_percent_names_are_replaced() -> None:
    assert resolve_percent("a%X%b%Y%", {"X": "1", "Y": "2"}.get) == "a1b2"
    assert resolve_percent("plain", _NOTHING.get) == "plain"
    with pytest.raises(ValueError, match="The '%' at position 1 does not have a closing '%'"):
        resolve_percent("a%X", {"X": "1"}.get)
    with pytest.raises(ValueError, match=r"'%Z%' does not resolve to a value\."):
        resolve_percent("%Z%", _NOTHING.get)


def test_connections_are_looked_up_in_azures_order() -> None:
    environ = {"X": "plain", "ConnectionStrings__X": "section"}
    settings = Settings(environ)

    def found(name: str) -> tuple[str, str | None] | None:
        connection = settings.connection(name)
        return None if connection is None else (connection.name, connection.text)

    assert found("X") == ("ConnectionStrings:X", "section")
    environ["AzureWebJobsX"] = "prefixed"
    assert found("x") == ("AzureWebJobsx", "prefixed")
    environ["AzureWebJobsStorage"] = "storage"
    assert found("") == ("AzureWebJobsStorage", "storage")
    assert found("AzureWebJobsStorage") == ("AzureWebJobsStorage", "storage")
    assert found("nothing") is None


def test_a_connection_may_have_parts_and_a_value_beats_them() -> None:
    environ = {"Data__accountName": "acct", "Data__credential": "managedidentity"}
    settings = Settings(environ)

    connection = settings.connection("Data")
    assert connection is not None
    assert (connection.text, connection.parts) == (None, {"accountname": "acct", "credential": "managedidentity"})
    environ["Data"] = "text"
    connection = settings.connection("Data")
    assert connection is not None
    assert (connection.text, connection.parts) == ("text", {})


def test_an_empty_connection_is_none() -> None:
    assert Settings({"AzureWebJobsStorage": ""}).connection("Storage") is None
