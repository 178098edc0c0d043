"""Requests that are repeated: when, how long, and who else waits meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from durable_host.errors import StoreUnavailableError
from durable_host.testing.environment import simulated_environment
from durable_host_providers.azure_storage.ports import ConflictError, StorageRequestError, ThrottledError
from durable_host_providers.azure_storage.rest_answers import error_of, retry_after_s
from durable_host_providers.azure_storage.rest_patience import NotSentError, Patience

pytestmark = pytest.mark.simulated


class Service:
    """Answers with the errors that it was given, one after another, then well; notes when it was asked."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.asked_at: list[float] = []

    async def __call__(self) -> str:
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def busy(retry_after: float | None = None) -> ThrottledError:
    return ThrottledError("busy", retry_after=retry_after)


async def test_what_is_throttled_is_repeated_after_the_time_that_the_service_names() -> None:
    patience, service = Patience(simulated_environment()), Service(busy(5), busy())

    assert await patience.run("queue.put", service) == "done"

    first, second, third = service.asked_at
    assert second - first >= 5
    assert third > second
    assert patience.requests == {"queue.put": 3}


async def test_everybody_waits_while_the_service_asks_for_patience() -> None:
    patience, service = Patience(simulated_environment()), Service(busy(5))
    other_queue, table = Service(), Service()

    async def later(kind: str, call: Callable[[], Awaitable[str]]) -> None:
        await asyncio.sleep(1)
        await patience.run(kind, call)

    await asyncio.gather(patience.run("queue.put", service), later("queue.get", other_queue), later("table.get", table))

    assert other_queue.asked_at[0] >= 5
    assert table.asked_at[0] == pytest.approx(1)


async def test_patience_ends() -> None:
    patience = Patience(simulated_environment())
    service = Service(*[busy(7)] * 100)

    with pytest.raises(ThrottledError):
        await patience.run("queue.put", service)

    assert 15 <= service.asked_at[-1] <= 60


async def test_what_got_no_answer_is_repeated_only_where_twice_is_as_good_as_once() -> None:
    patience = Patience(simulated_environment())

    for kind, safe, asked in (
        ("queue.put", None, 1),
        ("queue.get", None, 2),
        ("table.write", None, 1),
        ("table.write", True, 2),
        ("blob.renew_lease", None, 2),
        ("blob.release_lease", None, 1),
    ):
        service = Service(StoreUnavailableError("cut"))
        if asked == 1:
            with pytest.raises(StoreUnavailableError):
                await patience.run(kind, service, safe=safe)
        else:
            assert await patience.run(kind, service, safe=safe) == "done"
        assert len(service.asked_at) == asked, kind


async def test_what_never_left_is_repeated_a_few_times() -> None:
    patience = Patience(simulated_environment())
    recovers, stays_away = Service(NotSentError("refused")), Service(*[NotSentError("refused")] * 10)

    assert await patience.run("queue.put", recovers) == "done"
    with pytest.raises(NotSentError):
        await patience.run("queue.put", stays_away)

    assert 2 <= len(stays_away.asked_at) < 10


async def test_a_refusal_is_not_repeated() -> None:
    patience, service = Patience(simulated_environment()), Service(ConflictError("there"))

    with pytest.raises(ConflictError):
        await patience.run("queue.get", service)

    assert len(service.asked_at) == 1


async def test_what_is_still_being_deleted_keeps_nobody_else_waiting() -> None:
    patience = Patience(simulated_environment())
    deleted = Service(*[error_of("table.create", "t", 409, "TableBeingDeleted")] * 8)
    other = Service()

    async def later() -> None:
        await asyncio.sleep(2)
        await patience.run("table.get", other)

    await asyncio.gather(patience.run("table.create", deleted), later())

    assert deleted.asked_at[-1] > 8
    assert other.asked_at == [pytest.approx(2)]


async def test_answers_become_errors_that_say_what_where_and_why() -> None:
    for status, code, kind in (
        (404, "QueueNotFound", "NotFoundError"),
        (400, "PopReceiptMismatch", "NotFoundError"),
        (409, "EntityAlreadyExists", "ConflictError"),
        (412, "UpdateConditionNotSatisfied", "PreconditionFailedError"),
        (403, "AuthenticationFailed", "AccessDeniedError"),
        (413, "RequestBodyTooLarge", "RequestRefusedError"),
        (503, "ServerBusy", "ThrottledError"),
        (429, "", "ThrottledError"),
        (500, "InternalError", "StoreUnavailableError"),
    ):
        error = error_of("queue.put", "hub-control-00", status, code, "Words.\nRequestId:1\nTime:2")

        assert type(error).__name__ == kind
        assert "queue.put of 'hub-control-00'" in str(error)
        assert "RequestId" not in str(error)
        if isinstance(error, StorageRequestError):
            assert (error.status, error.code) == (status, code)


async def test_the_service_names_a_time_in_three_ways() -> None:
    assert retry_after_s({"Retry-After": "7"}, 0) == 7
    assert retry_after_s({"x-ms-retry-after-ms": "250"}, 0) == 0.25
    assert retry_after_s({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 20.0) == 40
    assert retry_after_s({"Retry-After": "soon"}, 0) is None
    assert retry_after_s({}, 0) is None
