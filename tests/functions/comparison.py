"""Comparing a recorded answer with ours: exact, apart from what the recording's README says varies.

Generated ids are compared by a mapping that must be one to one over the whole transcript; times must have the same
form; the order of members, numbers' forms, nulls and texts must be equal.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard, cast

__all__ = ["Ids", "Recorded", "differences"]

_GENERATED = re.compile(
    r"(?<![0-9a-f])(?:[0-9a-f]{32}|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})(?![0-9a-f])"
)
_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_FRACTION = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,6}[1-9])?(Z|\+00:00)")
_TIMES = {
    "createdTime": _SECONDS,
    "lastUpdatedTime": _SECONDS,
    "Timestamp": _FRACTION,
    "FireAt": _FRACTION,
    "ScheduledTime": _FRACTION,
}
_KNOWN_NAMES = re.compile(r"(?<=functions: )'.*'(?=\.)")
_CAUGHT = re.compile(
    r"The activity function '(\w+)' failed: \"(.*?)\"\. See the function execution logs.*?details\.", re.S
)
_CAUGHT_HERE = re.compile(r"Activity function '(\w+)' failed: ValueError: (boom \w+)( \n .*)?$", re.S)
_REASON = re.compile(r"Activity function '(\w+)' failed: (?:\w+: )?(.*)$", re.S)
_SERVERS = frozenset({"date", "server", "content-length", "transfer-encoding", "connection"})
_LOCAL = "http://127.0.0.1:17071/runtime/"
_PUBLIC = "http://localhost:7071/runtime/"


class Object(list[tuple[str, Any]]):
    """A JSON object: pairs keep the order and repeats of members."""

    def get(self, name: str) -> Any:
        return next((value for key, value in self if key == name), None)


class Number(str):
    """A number with a fraction or an exponent as it was written, so that 1.0 differs from 1."""


@dataclass(frozen=True)
class Recorded:
    """A request and its answer."""

    number: int
    group: str
    name: str
    method: str
    target: str
    headers: Mapping[str, str]
    body: str | None
    status: int
    answer_headers: Mapping[str, str]
    answer: str

    @classmethod
    def read(cls, number: int, entry: Mapping[str, Any]) -> Recorded:
        request, response = entry["request"], entry["response"]
        return cls(
            number,
            entry["group"],
            entry["name"],
            request["method"],
            request["target"],
            request["headers"],
            request["body"],
            response["status"],
            response["headers"],
            response["body"],
        )


@dataclass
class Ids:
    """Which of our generated ids stands for which recorded one."""

    ours: dict[str, str] = field(default_factory=dict[str, str])
    theirs: dict[str, str] = field(default_factory=dict[str, str])

    def same(self, recorded: str, ours: str) -> bool:
        """Whether two ids stand for each other; a pair that is new to both is learned."""
        if recorded not in self.ours and ours not in self.theirs:
            self.ours[recorded], self.theirs[ours] = ours, recorded
        return self.ours.get(recorded) == ours and self.theirs.get(ours) == recorded

    def translated(self, text: str) -> str:
        """A recorded text with our ids in it."""
        return _GENERATED.sub(lambda found: self.ours.get(found[0], found[0]), text)

    def copy(self) -> Ids:
        return Ids(dict(self.ours), dict(self.theirs))


def differences(recorded: Recorded, status: int, headers: Mapping[str, str], body: bytes, ids: Ids) -> list[str]:
    """Everything in which our answer differs; empty when it is the same. Learns ids only when nothing differs."""
    learned = ids.copy()
    found = list(_differences(recorded, status, headers, body, learned))
    if not found:
        ids.ours, ids.theirs = learned.ours, learned.theirs
    return found


def _differences(recorded: Recorded, status: int, headers: Mapping[str, str], body: bytes, ids: Ids) -> Iterator[str]:
    if status != recorded.status:
        yield f"status: recorded {recorded.status}, ours {status}"
    theirs = {name.lower(): value for name, value in recorded.answer_headers.items() if name.lower() not in _SERVERS}
    ours = {name.lower(): value for name, value in headers.items() if name.lower() not in _SERVERS}
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in theirs or name not in ours:
            yield f"header {name}: recorded {theirs.get(name)!r}, ours {ours.get(name)!r}"
        elif name == "x-ms-continuation-token":
            if bool(theirs[name]) != bool(ours[name]):
                yield f"header {name}: recorded {theirs[name]!r}, ours {ours[name]!r}"
        else:
            yield from _texts(f"header {name}", theirs[name], ours[name], ids)
    if not recorded.answer or not body:
        if recorded.answer or body:
            yield f"body: recorded {recorded.answer[:300]!r}, ours {body[:300]!r}"
        return
    try:
        one, other = _parsed(recorded.answer), _parsed(body.decode())
        if _is_list(one) and _is_list(other):
            yield from _lists(one, other, ids)
        else:
            yield from _values("$", one, other, ids)
    except ValueError as error:
        yield f"body: not JSON: {error}: {body[:300]!r}"


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=Object, parse_float=Number)


def _values(path: str, theirs: Any, ours: Any, ids: Ids) -> Iterator[str]:
    if type(theirs) is not type(ours):
        yield f"{path}: recorded {_short(theirs)}, ours {_short(ours)}"
    elif isinstance(theirs, Object):
        yield from _objects(path, theirs, ours, ids)
    elif isinstance(theirs, list):
        one, other = cast("list[Any]", theirs), cast("list[Any]", ours)
        if len(one) != len(other):
            yield f"{path}: recorded {len(one)} items, ours {len(other)}: {_short(one)} / {_short(other)}"
        for at, (each, its) in enumerate(zip(one, other, strict=False)):
            yield from _values(f"{path}[{at}]", each, its, ids)
    elif type(theirs) is str:
        yield from _texts(path, theirs, ours, ids)
    elif theirs != ours:
        yield f"{path}: recorded {_short(theirs)}, ours {_short(ours)}"


def _is_list(value: object) -> TypeGuard[list[Object]]:
    return type(value) is list and all(isinstance(each, Object) for each in cast("list[Any]", value))


def _lists(theirs: list[Object], ours: list[Object], ids: Ids) -> Iterator[str]:
    """Lists of instances. Those with generated ids stand where their id puts them: compared by content."""
    names = [str(each.get("instanceId")) for each in ours]
    if names != sorted(names):
        yield f"$: not in ordinal order: {names}"
    named = [[each for each in items if not _is_generated(each)] for items in (theirs, ours)]
    named[0].sort(key=lambda each: str(each.get("instanceId")))
    yield from _values("$named", named[0], named[1], ids)
    made = [sorted((each for each in items if _is_generated(each)), key=_content) for items in (theirs, ours)]
    nameless = [[_nameless(each) for each in items] for items in made]
    yield from _values("$generated", nameless[0], nameless[1], ids)


def _is_generated(item: Object) -> bool:
    return _GENERATED.match(str(item.get("instanceId"))) is not None


def _nameless(item: Object) -> Object:
    return Object((name, "ID" if name == "instanceId" else value) for name, value in item)


def _content(item: Object) -> str:
    return repr([pair for pair in item if pair[0] not in _TIMES and pair[0] != "instanceId"])


def _objects(path: str, theirs: Object, ours: Object, ids: Ids) -> Iterator[str]:
    if [name for name, _ in theirs] != [name for name, _ in ours]:
        yield f"{path}: recorded members {[name for name, _ in theirs]}, ours {[name for name, _ in ours]}"
        return
    parser = ("Message", "Invalid JSON content") in theirs
    for (name, one), (_, other) in zip(theirs, ours, strict=True):
        at = f"{path}.{name}"
        if name in _TIMES and isinstance(one, str):
            if not isinstance(other, str) or not _TIMES[name].fullmatch(other) or one[-1] != other[-1]:
                yield f"{at}: not a time of this form: {other!r}"
        elif name == "StackTrace":
            if other != "":  # deliberate difference: present and empty
                yield f"{at}: ours is not empty"
        elif name == "Details":
            if (one is None) != (other is None):
                yield f"{at}: recorded {_short(one)}, ours {_short(other)}"
        elif parser and name == "ExceptionMessage":
            if not isinstance(other, str) or not other:
                yield f"{at}: the parser says nothing"
        elif name == "Reason" and isinstance(one, str) and isinstance(other, str) and _REASON.match(one):
            # In-process .NET leaves out the type of the failure (http-api.md 5.2).
            yield from _texts(at, _REASON.sub(r"\1: \2", one), _REASON.sub(r"\1: \2", other), ids)
        else:
            yield from _values(at, one, other, ids)


def _texts(path: str, theirs: str, ours: str, ids: Ids) -> Iterator[str]:
    if theirs == ours:
        return
    theirs, ours = _plain(theirs, _CAUGHT), _plain(ours, _CAUGHT_HERE)
    theirs, ours = _KNOWN_NAMES.sub(_sorted, theirs), _KNOWN_NAMES.sub(_sorted, ours)
    # Deliberate difference: answers of the RPC endpoint hold links of the public one.
    theirs = theirs.replace(_LOCAL, _PUBLIC)
    one, other = _GENERATED.findall(theirs), _GENERATED.findall(ours)
    if _GENERATED.sub("ID", theirs) != _GENERATED.sub("ID", ours):
        yield f"{path}: recorded {_short(theirs)}, ours {_short(ours)}"
    elif not all(ids.same(each, its) for each, its in zip(one, other, strict=True)):
        yield f"{path}: another id: recorded {_short(theirs)}, ours {_short(ours)}"


def _plain(text: str, pattern: re.Pattern[str]) -> str:
    return pattern.sub(r"Activity function '\1' failed: \2", text)


def _sorted(found: re.Match[str]) -> str:
    return ", ".join(sorted(found[0].split(", ")))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 400 else f"{text[:400]}…"
