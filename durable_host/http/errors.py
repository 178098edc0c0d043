"""The three forms of an error body (http-api.md section 2) and which exception becomes which answer."""

from __future__ import annotations

import logging

from durable_host.errors import (
    DurableHostError,
    InvalidInstanceIdError,
    PayloadError,
    UnsupportedError,
)
from durable_host.http.messages import Answer, json_answer
from durable_host.http.query import FilterError

__all__ = [
    "ARGUMENT",
    "EXISTS",
    "INCORRECT",
    "READER",
    "WRONG",
    "answer_of",
    "error_text",
    "first_form",
    "invalid_json",
    "second_form",
]

logger = logging.getLogger(__name__)

INCORRECT = "One or more of the arguments submitted is incorrect"
WRONG = "Something went wrong while processing your request"

ARGUMENT = "System.ArgumentException"
EXISTS = "DurableTask.Core.Exceptions.OrchestrationAlreadyExistsException"
READER = "Newtonsoft.Json.JsonReaderException"


def first_form(status: int, message: str) -> Answer:
    """`{"Message": …}`."""
    return json_answer(status, {"Message": message})


def second_form(status: int, message: str, text: str, kind: str) -> Answer:
    """`{"Message", "ExceptionMessage", "ExceptionType", "StackTrace"}`; the stack is nobody else's business."""
    return json_answer(status, {"Message": message, "ExceptionMessage": text, "ExceptionType": kind, "StackTrace": ""})


def error_text(status: int, text: str) -> Answer:
    """The third form: a JSON string."""
    return json_answer(status, text)


def invalid_json(reason: str) -> Answer:
    """A body that is not JSON, with what the parser says."""
    return second_form(400, "Invalid JSON content", reason, READER)


def answer_of(error: Exception) -> Answer:
    """The catch-all: the caller's fault is 400, anything else 500, both in the second form."""
    match error:
        case FilterError():
            return first_form(400, str(error))
        case InvalidInstanceIdError() | PayloadError():
            return second_form(400, INCORRECT, str(error), ARGUMENT)
        case UnsupportedError():
            return first_form(501, str(error))
        case DurableHostError():
            # Expected trouble with a text of its own, most often a store that cannot be reached; no stack needed.
            logger.warning("request failed: %s", error, extra={"event": "http_request_failed"})
            return second_form(500, WRONG, str(error), _name(error))
        case _:
            logger.error("request failed", exc_info=error, extra={"event": "http_request_failed"})
            return second_form(500, WRONG, str(error) or type(error).__name__, _name(error))


def _name(error: Exception) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
