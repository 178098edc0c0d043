from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from durable_host.config.jsonc import JsonFileError, parse_json
from durable_host.config.spans import format_span, parse_span, span_hint


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("00:00:30", timedelta(seconds=30)),
        ("1:02", timedelta(hours=1, minutes=2)),
        ("1:02:03", timedelta(hours=1, minutes=2, seconds=3)),
        ("1.02:03", timedelta(days=1, hours=2, minutes=3)),
        ("1.02:03:04.5", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        ("1:02:03:04", timedelta(days=1, hours=2, minutes=3, seconds=4)),
        ("-00:00:01", timedelta(seconds=-1)),
        ("7", timedelta(days=7)),
        ("-1", timedelta(days=-1)),
        ("24:00:00", timedelta(days=24)),
        (" 00:00:00.1000000 ", timedelta(milliseconds=100)),
    ],
)
def test_time_spans_have_their_dotnet_meaning(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "00:60:00", "1.24:00:00", "00:00:61", "1:2:3:4:5", "00:10.5", "1e3", "٣"]
)
def test_other_texts_are_no_time_spans(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time span"):
        parse_span(text)


@given(st.timedeltas(min_value=timedelta(days=-10_000), max_value=timedelta(days=10_000)))
def test_a_written_span_reads_back(span: timedelta) -> None:
    assert parse_span(format_span(span)) == span


def test_spans_that_surprise_come_with_a_hint() -> None:
    assert "24 days" in (span_hint("24:00:00") or "")
    assert "5 days" in (span_hint("5") or "")
    assert span_hint("00:05:00") is None
    assert span_hint("-1") is None


def test_comments_and_trailing_commas_are_blanked_but_not_inside_strings() -> None:
    text = """{
      // a comment with "quotes"
      "url": "http://x/*not a comment*/", /* one
      over two lines */
      "list": [1, 2, /* last */ ], // end
      "quote": "\\"//",
    }"""

    assert parse_json(text) == {"url": "http://x/*not a comment*/", "list": [1, 2], "quote": '"//'}


def test_an_error_keeps_the_line_and_column_of_the_file() -> None:
    with pytest.raises(JsonFileError, match="line 3, column 8"):
        parse_json('{ // one\n /* two */\n  "a": x}')


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", '{"a": NaN}', '{"a": 1} x', "/* open", "[" * 100_000])
def test_what_is_not_json_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(JsonFileError) as caught:
        parse_json(text)

    assert "\n" not in str(caught.value)
