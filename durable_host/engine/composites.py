"""Tasks made of tasks: all, all settled, any.

They count down as their members finish, so that the last of 10,000 parallel activities costs as much as the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast, overload

from durable_host.engine.execution import Execution
from durable_host.engine.tasks import Task
from durable_host.errors import ForeignAwaitableError

__all__ = [
    "AllTask",
    "AnyTask",
    "Composites",
    "SettledTask",
    "task_all",
    "task_any",
    "when_all",
    "when_all_settled",
    "when_any",
]

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")


class AllTask(Task[Any]):
    """Done when all members succeeded, or as soon as one failed. The value holds theirs, in argument order."""

    __slots__ = ("_left", "_members", "_shape")

    def __init__(self, execution: Execution | None, members: Sequence[Task[Any]], shape: type) -> None:
        super().__init__(execution)
        self._members: Sequence[Task[Any]] = members
        self._left = len(members)
        self._shape = shape
        if not members:
            self.succeed(shape())
        for member in members:
            member.listen(self)

    def on_done(self, task: Task[Any]) -> None:
        """A member is done."""
        if self._done:
            return
        if task.exception is not None:
            self._members = ()
            self.fail(task.exception)
            return
        self._left -= 1
        if self._left == 0:
            members, self._members = self._members, ()
            self.succeed(self._shape(member.result for member in members))


class SettledTask(Task[Any]):
    """Done when all members are, failed or not. The value is the list of the members."""

    __slots__ = ("_left", "_members")

    def __init__(self, execution: Execution | None, members: Sequence[Task[Any]]) -> None:
        super().__init__(execution)
        self._members = members
        self._left = len(members)
        if not members:
            self.succeed([])
        for member in members:
            member.listen(self)

    def on_done(self, task: Task[Any]) -> None:
        """A member is done."""
        self._left -= 1
        if self._left == 0:
            self.succeed(list(self._members))


class AnyTask(Task[Any]):
    """Done with the first member that is, failed or not. The value is that member."""

    __slots__ = ("_members",)

    def __init__(self, execution: Execution | None, members: Sequence[Task[Any]]) -> None:
        super().__init__(execution)
        self._members: Sequence[Task[Any]] = members
        for member in members:
            if self._done:
                return
            member.listen(self)

    def on_done(self, task: Task[Any]) -> None:
        """A member is done."""
        if self._done:
            return
        members, self._members = self._members, ()
        for member in members:
            if member is not task:
                member.forget(self)
        self.succeed(task)


def _members(name: str, given: tuple[Any, ...]) -> tuple[Sequence[Task[Any]], type]:
    shape: type = tuple
    if len(given) == 1 and not isinstance(given[0], Task):
        if isinstance(given[0], (str, bytes)) or not isinstance(given[0], Iterable):
            raise ForeignAwaitableError(f"{name} takes tasks or one list of tasks, not {given[0]!r}.")
        given, shape = tuple(cast("Iterable[Any]", given[0])), list  # type: ignore[redundant-cast]  # not for pyright
    for each in given:
        if not isinstance(each, Task):
            raise ForeignAwaitableError(
                f"{name} takes tasks, the values that context methods like call_activity return, not {each!r}."
            )
    return given, shape


def _execution_of(members: Sequence[Task[Any]]) -> Execution | None:
    return members[0]._execution if members else None  # pyright: ignore[reportPrivateUsage]


class Composites:
    """The functions below as methods of the context."""

    __slots__ = ()

    @overload
    @staticmethod
    def when_all(first: Task[A], second: Task[B], /) -> Task[tuple[A, B]]: ...
    @overload
    @staticmethod
    def when_all(first: Task[A], second: Task[B], third: Task[C], /) -> Task[tuple[A, B, C]]: ...
    @overload
    @staticmethod
    def when_all(first: Task[A], second: Task[B], third: Task[C], fourth: Task[D], /) -> Task[tuple[A, B, C, D]]: ...
    @overload
    @staticmethod
    def when_all(
        first: Task[A], second: Task[B], third: Task[C], fourth: Task[D], fifth: Task[E], /
    ) -> Task[tuple[A, B, C, D, E]]: ...
    @overload
    @staticmethod
    def when_all(tasks: Iterable[Task[T]], /) -> Task[list[T]]: ...
    @overload
    @staticmethod
    def when_all(*tasks: Task[T]) -> Task[tuple[T, ...]]: ...
    @staticmethod
    def when_all(*tasks: Any) -> Task[Any]:
        """Wait for all tasks; the first failure is raised at once.

        Args:
            tasks: tasks (the value is a tuple) or one iterable of tasks (the value is a list). In argument order.
        """
        members, shape = _members("when_all", tasks)
        return AllTask(_execution_of(members), members, shape)

    @overload
    @staticmethod
    def when_all_settled(tasks: Iterable[Task[T]], /) -> Task[list[Task[T]]]: ...
    @overload
    @staticmethod
    def when_all_settled(*tasks: Task[T]) -> Task[list[Task[T]]]: ...
    @staticmethod
    def when_all_settled(*tasks: Any) -> Task[Any]:
        """Wait until all tasks are done, failed or not; the value is the list of them, in argument order.

        Ask each for `is_failed`, `exception` and `result`.
        """
        members, _ = _members("when_all_settled", tasks)
        return SettledTask(_execution_of(members), members)

    @overload
    @staticmethod
    def when_any(tasks: Iterable[Task[T]], /) -> Task[Task[T]]: ...
    @overload
    @staticmethod
    def when_any(*tasks: Task[T]) -> Task[Task[T]]: ...
    @staticmethod
    def when_any(*tasks: Any) -> Task[Any]:
        """Wait for the first task to be done; the value is that task, also when it failed.

        Raises:
            ValueError: without any task the wait would never end.
        """
        members, _ = _members("when_any", tasks)
        if not members:
            raise ValueError("when_any needs at least one task; waiting for none would never end.")
        return AnyTask(_execution_of(members), members)

    @staticmethod
    def task_all(activities: Iterable[Task[T]]) -> Task[list[T]]:
        """Azure's name for `when_all` of a list."""
        return Composites.when_all(activities)

    @staticmethod
    def task_any(activities: Iterable[Task[T]]) -> Task[Task[T]]:
        """Azure's name for `when_any` of a list."""
        return Composites.when_any(activities)


when_all = Composites.when_all
when_all_settled = Composites.when_all_settled
when_any = Composites.when_any
task_all = Composites.task_all
task_any = Composites.task_any
