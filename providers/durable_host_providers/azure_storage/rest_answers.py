"""What the service's answers mean: which error, whether to ask again, and after how long."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

from durable_host.errors import StoreError, StoreUnavailableError

from .ports import (
    AccessDeniedError,
    ConflictError,
    NotFoundError,
    PreconditionFailedError,
    RequestRefusedError,
    ThrottledError,
)

__all__ = ["BeingDeletedError", "error_of", "retry_after_s", "unreachable"]

_THROTTLED = frozenset({429, 503})
_BEING_DELETED = frozenset({"TableBeingDeleted", "QueueBeingDeleted", "ContainerBeingDeleted"})
_GONE = frozenset({"PopReceiptMismatch", "MessageNotFound"})
_INDEXED = re.compile(r"(\d{1,3}):")
_DETAIL = 200


class BeingDeletedError(ThrottledError):
    """A 409 that ends by itself, half a minute or so after a table, queue or container was deleted."""


def error_of(
    kind: str,
    target: str,
    status: int,
    code: str,
    detail: str = "",
    *,
    index: int | None = None,
    retry_after: float | None = None,
) -> StoreError:
    """The port's error for an answer.

    Args:
        kind: of the request, see `REQUEST_KINDS`.
        target: what it was about, without secrets.
        detail: the service's own words; the first line is used, and nothing of a refused signature.
        index: of the operation of a transaction; else taken from the detail, where the service puts it in front.
    """
    if index is None and kind == "table.transact" and (match := _INDEXED.match(detail)):
        index = int(match.group(1))
    said = detail.strip().split("\n", 1)[0][:_DETAIL]
    text = f"Azure Storage answered {status} {code} to {kind} of {target!r}".replace("  ", " ")
    if status in {401, 403}:
        return AccessDeniedError(
            f"{text}; check the connection's key, signature or role assignments, and the machine's clock.",
            status=status,
            code=code,
        )
    if status in _THROTTLED:
        return ThrottledError(f"{text}; it is busy.", retry_after=retry_after)
    if code in _BEING_DELETED:
        return BeingDeletedError(f"{text}: it is still being deleted; try again in a minute.", retry_after=retry_after)
    if status >= 500:
        return StoreUnavailableError(f"{text}.")
    text = f"{text}: {said}" if said else f"{text}."
    if status == 404 or code in _GONE:
        return NotFoundError(text, status=status, code=code, index=index)
    if status == 409:
        return ConflictError(text, status=status, code=code, index=index)
    if status == 412:
        return PreconditionFailedError(text, status=status, code=code, index=index)
    return RequestRefusedError(text, status=status, code=code)


def unreachable(kind: str, target: str, location: str, error: BaseException) -> StoreUnavailableError:
    """No answer: the account cannot be reached, or the answer was cut short."""
    why = "took too long" if isinstance(error, TimeoutError) else f"failed ({type(error).__name__})"
    return StoreUnavailableError(
        f"{kind} of {target!r} {why}; is Azure Storage reachable at {location}? Its effect is unknown."
    )


def retry_after_s(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds that the answer asks to wait, from `Retry-After` or `x-ms-retry-after-ms`; None: it does not say."""
    milliseconds = headers.get("x-ms-retry-after-ms", "")
    if milliseconds.isdecimal():
        return int(milliseconds) / 1000
    text = headers.get("Retry-After", "").strip()
    if text.isdecimal():
        return float(text)
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - now)
        except ValueError:
            return None
    return None
