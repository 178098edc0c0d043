"""JSON as people write it in configuration files: with comments, trailing commas and a byte order mark.

Azure's host reads its files with Newtonsoft.Json, which tolerates these. Comments and stray commas are blanked, so the
line and column of an error stay those of the file.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

__all__ = ["Json", "JsonFileError", "parse_json", "read_json_file"]

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
"""What a JSON text can hold."""

_COMMENT = r"//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/"
_TOKEN = re.compile(rf'"(?:\\.|[^"\\\n])*+"|{_COMMENT}|,(?=(?:\s|{_COMMENT})*+[}}\]])')
_NOT_NEWLINE = re.compile(r"[^\n]")


class JsonFileError(Exception):
    """A text is not JSON; `str` says why and where, in one line."""


def parse_json(text: str) -> Json:
    """Read JSON, tolerating comments and trailing commas; of a repeated key the last counts.

    Raises:
        JsonFileError: with line and column.
    """
    blanked = _TOKEN.sub(lambda found: found[0] if found[0][0] == '"' else _NOT_NEWLINE.sub(" ", found[0]), text)
    try:
        value: Json = json.loads(blanked, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise JsonFileError(f"{error.msg}: line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise JsonFileError("nested too deeply") from None
    return value


def read_json_file(path: Path) -> Json:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        JsonFileError: it is not JSON or not UTF-8.
        OSError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise JsonFileError(f"not UTF-8: byte {error.start}") from None
    return parse_json(text)


def _refuse_constant(name: str) -> float:
    raise JsonFileError(f"{name} is not JSON")
