"""The part of the context that calls: activities, sub-orchestrations, bounded fan-out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Mapping
from typing import Any, TypeVar, overload

from durable_host.engine.annotations import result_type
from durable_host.engine.composites import Composites
from durable_host.engine.execution import CallWaiter, Execution
from durable_host.engine.fanout import MapTask
from durable_host.engine.retries import RetryingCall
from durable_host.engine.tasks import CallTask, Task
from durable_host.model.ids import InstanceId, check_instance_id
from durable_host.model.names import function_name
from durable_host.model.payloads import encode_payload
from durable_host.model.retry import RetryOptions

__all__ = ["Calls"]

A = TypeVar("A")
R = TypeVar("R")
T = TypeVar("T")


class Calls(Composites):
    """Calls and what is made of them. Inputs are encoded, and ids taken, when a method is called."""

    __slots__ = ("_execution",)

    def __init__(self, execution: Execution) -> None:
        self._execution: Execution = execution

    def _require_active(self) -> None:
        if not self._execution.active:
            self._execution.refuse()

    @overload
    def call_activity(
        self,
        name: Callable[[A], Awaitable[R]],
        input_: A,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        name: Callable[[], Awaitable[R]],
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        name: Callable[[A], R],
        input_: A,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self, name: Callable[[], R], *, retry: RetryOptions | None = None, tags: Mapping[str, str] | None = None
    ) -> Task[R]: ...
    @overload
    def call_activity(
        self,
        name: str | Callable[..., Any],
        input_: object = None,
        *,
        expected_type: type[T],
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[T]: ...
    @overload
    def call_activity(
        self,
        name: str,
        input_: object = None,
        expected_type: Any = None,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[Any]: ...
    def call_activity(
        self,
        name: str | Callable[..., Any],
        input_: object = None,
        expected_type: Any = None,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[Any]:
        """Run an activity.

        Args:
            name: the activity's name, or the function itself; then its return annotation shapes the result.
            input_: passed to the activity.
            expected_type: shape of the result, ahead of the annotation.
            retry: call again when it fails.
            tags: kept with the request.

        Returns:
            The result. A failure is raised as ActivityFailedError where the task is yielded or awaited.
        """
        execution = self._execution
        if not execution.active:
            execution.refuse()
        if isinstance(name, str):
            called, shape = name, Any if expected_type is None else expected_type
        else:
            called, shape = function_name(name), _result_of(name) if expected_type is None else expected_type
        text = None if input_ is None else encode_payload(input_)
        if retry is None:
            task: CallTask[Any] = CallTask(execution, called, shape)
            execution.ask_activity(task, called, text, None if tags is None else dict(tags))
            return task
        return self._retried_activity(called, text, shape, retry, tags)

    def _retried_activity(
        self, name: str, text: str | None, shape: Any, retry: RetryOptions, tags: Mapping[str, str] | None
    ) -> Task[Any]:
        execution = self._execution
        kept = None if tags is None else dict(tags)

        def ask(waiter: CallWaiter) -> int:
            return execution.ask_activity(waiter, name, text, kept)

        return RetryingCall(execution, name, shape, _policy(retry), ask)

    @overload
    def call_activity_with_retry(
        self, name: Callable[[A], Awaitable[R]], retry_options: RetryOptions, input_: A
    ) -> Task[R]: ...
    @overload
    def call_activity_with_retry(self, name: Callable[[], Awaitable[R]], retry_options: RetryOptions) -> Task[R]: ...
    @overload
    def call_activity_with_retry(self, name: Callable[[A], R], retry_options: RetryOptions, input_: A) -> Task[R]: ...
    @overload
    def call_activity_with_retry(self, name: Callable[[], R], retry_options: RetryOptions) -> Task[R]: ...
    @overload
    def call_activity_with_retry(
        self,
        name: str | Callable[..., Any],
        retry_options: RetryOptions,
        input_: object = None,
        *,
        expected_type: type[T],
    ) -> Task[T]: ...
    @overload
    def call_activity_with_retry(
        self, name: str, retry_options: RetryOptions, input_: object = None, expected_type: Any = None
    ) -> Task[Any]: ...
    def call_activity_with_retry(
        self,
        name: str | Callable[..., Any],
        retry_options: RetryOptions,
        input_: object = None,
        expected_type: Any = None,
    ) -> Task[Any]:
        """Run an activity and, when it fails, run it again; Azure's form of `call_activity(..., retry=...)`."""
        if expected_type is None and not isinstance(name, str):
            expected_type = _result_of(name)
        return self.call_activity(function_name(name), input_, expected_type, retry=_policy(retry_options))

    @overload
    def call_sub_orchestrator(
        self,
        name: Callable[[Any], Generator[Any, Any, R]],
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: Callable[[Any], Coroutine[Any, Any, R]],
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[R]: ...
    @overload
    def call_sub_orchestrator(
        self,
        name: str,
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: Any = None,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[Any]: ...
    def call_sub_orchestrator(
        self,
        name: str | Callable[..., Any],
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: Any = None,
        *,
        retry: RetryOptions | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Task[Any]:
        """Run another orchestrator as a child.

        Args:
            instance_id: the child's id; by default `{execution id}:{action id}`. A retried child with a given id is
                started again under it.
            version, tags: recorded with the child's start.

        Returns:
            The child's output. Failure and termination are raised as SubOrchestrationFailedError.
        """
        self._require_active()
        execution = self._execution
        if expected_type is None:
            expected_type = Any if isinstance(name, str) else _result_of(name)
        called = function_name(name)
        chosen = None if instance_id is None else check_instance_id(instance_id)
        text = None if input_ is None else encode_payload(input_)
        kept = None if tags is None else dict(tags)
        if retry is None:
            task: CallTask[Any] = CallTask(execution, called, expected_type)
            execution.ask_child(task, called, text, chosen, version, kept)
            return task

        def ask(waiter: CallWaiter) -> int:
            return execution.ask_child(waiter, called, text, chosen, version, kept)

        return RetryingCall(execution, called, expected_type, _policy(retry), ask)

    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: Callable[[Any], Generator[Any, Any, R]] | Callable[[Any], Coroutine[Any, Any, R]],
        retry_options: RetryOptions,
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
    ) -> Task[R]: ...
    @overload
    def call_sub_orchestrator_with_retry(
        self,
        name: str,
        retry_options: RetryOptions,
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: Any = None,
    ) -> Task[Any]: ...
    def call_sub_orchestrator_with_retry(
        self,
        name: str | Callable[..., Any],
        retry_options: RetryOptions,
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
        expected_type: Any = None,
    ) -> Task[Any]:
        """Azure's form of `call_sub_orchestrator(..., retry=...)`."""
        if expected_type is None and not isinstance(name, str):
            expected_type = _result_of(name)
        policy = _policy(retry_options)
        return self.call_sub_orchestrator(
            function_name(name), input_, instance_id, version, expected_type, retry=policy
        )

    def start_detached(
        self,
        name: str | Callable[..., Any],
        input_: object = None,
        instance_id: str | None = None,
        version: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
    ) -> InstanceId:
        """Start an orchestrator and do not wait for it; returns its instance id at once."""
        self._require_active()
        called = function_name(name)
        chosen = None if instance_id is None else check_instance_id(instance_id)
        text = None if input_ is None else encode_payload(input_)
        execution = self._execution
        taken = execution.ask_child(None, called, text, chosen, version, None if tags is None else dict(tags))
        return InstanceId(f"{execution.execution_id}:{taken}") if chosen is None else chosen

    @overload
    def map(
        self,
        activity: Callable[[A], Awaitable[R]],
        items: Iterable[A],
        *,
        concurrency: int | None = None,
        retry: RetryOptions | None = None,
    ) -> Task[list[R]]: ...
    @overload
    def map(
        self,
        activity: Callable[[A], R],
        items: Iterable[A],
        *,
        concurrency: int | None = None,
        retry: RetryOptions | None = None,
    ) -> Task[list[R]]: ...
    @overload
    def map(
        self,
        activity: str,
        items: Iterable[object],
        *,
        concurrency: int | None = None,
        retry: RetryOptions | None = None,
        expected_type: Any = None,
    ) -> Task[list[Any]]: ...
    def map(
        self,
        activity: str | Callable[..., Any],
        items: Iterable[object],
        *,
        concurrency: int | None = None,
        retry: RetryOptions | None = None,
        expected_type: Any = None,
    ) -> Task[Any]:
        """Run an activity for every item, at most `concurrency` at once (None: all); results in the items' order.

        The first failure is raised at once, and no further item is begun.
        """
        self._require_active()
        inputs = [None if item is None else encode_payload(item) for item in items]
        if concurrency is not None and concurrency < 1:
            raise ValueError(f"concurrency is {concurrency!r}; it must be at least 1, or None for no limit")
        execution = self._execution
        called = function_name(activity)
        shape = expected_type
        if shape is None:
            shape = Any if isinstance(activity, str) else _result_of(activity)
        policy = None if retry is None else _policy(retry)

        def call(text: str | None) -> Task[Any]:
            if policy is not None:
                return self._retried_activity(called, text, shape, policy, None)
            task: CallTask[Any] = CallTask(execution, called, shape)
            execution.ask_activity(task, called, text, None)
            return task

        return MapTask(execution, inputs, len(inputs) if concurrency is None else concurrency, call)


def _policy(given: object) -> RetryOptions:
    if isinstance(given, RetryOptions):
        return given
    raise TypeError(f"a retry policy is a RetryOptions, not {given!r}")


def _result_of(function: Callable[..., Any]) -> Any:
    try:
        return result_type(function)
    except TypeError:  # an object without a hash
        return result_type.__wrapped__(function)
