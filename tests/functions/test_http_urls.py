from __future__ import annotations

import json

from durable_host.bindings.urls import ManagementUrls, quote_segment

URLS = ManagementUrls("http://localhost:7071/runtime/webhooks/durabletask", "worker", code="KEY")
STATUS = "http://localhost:7071/runtime/webhooks/durabletask/instances/a+b?taskHub=worker&connection=Storage&code=KEY"


def test_segments_are_encoded_as_form_fields() -> None:
    assert quote_segment("@a b+c/ü~") == "%40a+b%2Bc%2F%C3%BC%7E"


def test_check_status_payload_has_no_rewind_address_and_keeps_its_order() -> None:
    payload = URLS.check_status("a b")

    assert list(payload) == [
        "id",
        "statusQueryGetUri",
        "sendEventPostUri",
        "terminatePostUri",
        "purgeHistoryDeleteUri",
        "restartPostUri",
        "suspendPostUri",
        "resumePostUri",
    ]
    assert payload["id"] == "a b"
    assert payload["statusQueryGetUri"] == STATUS == URLS.status("a b")
    assert "/raiseEvent/{eventName}?taskHub=worker" in payload["sendEventPostUri"]


def test_management_payload_has_the_rewind_address_after_terminate() -> None:
    keys = list(URLS.management("x"))

    assert keys.index("rewindPostUri") == keys.index("terminatePostUri") + 1


def test_binding_is_as_recorded() -> None:
    text = json.dumps(URLS.binding("http://127.0.0.1:17071/durabletask/"), separators=(",", ":"))

    assert text.startswith('{"taskHubName":"worker","connectionName":null,"creationUrls":{"createNewInstancePostUri":')
    assert '/orchestrators/{functionName}[/{instanceId}]?code=KEY"' in text
    assert text.endswith(
        '"requiredQueryStringParameters":"code=KEY","rpcBaseUrl":"http://127.0.0.1:17071/durabletask/",'
        '"httpBaseUrl":null,"maxGrpcMessageSizeInBytes":null,"grpcHttpClientTimeout":null}'
    )


def test_without_keys_no_address_mentions_a_code() -> None:
    urls = ManagementUrls("http://localhost:7071/runtime/webhooks/durabletask", "hub")

    assert "code" not in json.dumps(urls.binding(None))
    assert urls.creation()["createNewInstancePostUri"].endswith("orchestrators/{functionName}[/{instanceId}]")


def test_origin_can_be_replaced() -> None:
    assert (
        URLS.with_origin("https://example.org")
        .status("i")
        .startswith("https://example.org/runtime/webhooks/durabletask/instances/i?")
    )
