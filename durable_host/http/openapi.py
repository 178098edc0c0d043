"""The OpenAPI document, made from the route table."""

from __future__ import annotations

from durable_host.bindings.routes import RouteTable
from durable_host.http.messages import Answer, json_answer

__all__ = ["document_answer"]


def document_answer(routes: RouteTable, server: str, demands_keys: bool) -> Answer:
    return json_answer(200, {})
