"""Form bodies: urlencoded fields and multipart uploads, behind `HttpRequest.form` and `HttpRequest.files`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

__all__ = ["FormData", "UploadedFile", "parse_form"]

T = TypeVar("T")


class FormData(Mapping[str, T], Generic[T]):
    """Fields of a form: as a mapping the first value of each name, with `getlist` all of them."""

    __slots__ = ("_values",)

    def __init__(self, items: list[tuple[str, T]] | None = None) -> None:
        self._values: dict[str, list[T]] = {}
        for name, value in items or ():
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> T:
        return self._values[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def getlist(self, name: str) -> list[T]:
        """All values of a name, in order."""
        return list(self._values.get(name, ()))


class UploadedFile:
    """One file of a multipart body.

    Attributes:
        name: of the form field.
        filename: as the client sent it; never use it as a path.
        content_type: as the client sent it.
        stream: the content, positioned at its start.
    """

    __slots__ = ("content_type", "filename", "name", "stream")

    def __init__(self, name: str, filename: str, content_type: str, content: bytes) -> None:
        self.name = name
        self.filename = filename
        self.content_type = content_type
        self.stream = io.BytesIO(content)

    def read(self, size: int = -1, /) -> bytes:
        """The next `size` bytes, or the rest."""
        return self.stream.read(size)


def parse_form(content_type: str, body: bytes) -> tuple[FormData[str], FormData[UploadedFile]]:
    """Fields and files of a body; both empty when its content type is no form.

    Raises:
        ValueError: a urlencoded body is not UTF-8.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        fields = parse_qsl(body.decode("utf-8"), keep_blank_values=True)
        return FormData(fields), FormData()
    if kind == "multipart/form-data":
        return _parse_multipart(content_type, body)
    return FormData(), FormData()


def _parse_multipart(content_type: str, body: bytes) -> tuple[FormData[str], FormData[UploadedFile]]:
    from email import policy  # slow to import, rarely needed
    from email.message import EmailMessage
    from email.parser import BytesParser

    head = b"MIME-Version: 1.0\r\nContent-Type: " + content_type.encode("latin-1", "replace") + b"\r\n\r\n"
    message = BytesParser(EmailMessage, policy=policy.HTTP).parsebytes(head + body)
    fields: list[tuple[str, str]] = []
    files: list[tuple[str, UploadedFile]] = []
    for part in message.iter_parts():
        disposition = part["content-disposition"]
        if disposition is None:
            continue
        name = disposition.params.get("name")
        if name is None:
            continue
        filename = disposition.params.get("filename")
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else b""
        if filename is None:
            fields.append((name, content.decode(part.get_content_charset("utf-8"), "replace")))
        else:
            files.append((name, UploadedFile(name, filename, part.get_content_type(), content)))
    return FormData(fields), FormData(files)
