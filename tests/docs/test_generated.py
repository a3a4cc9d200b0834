"""The generated pages are what their generators make of the code as it is now."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from docs.generate import DOCS, PAGES, picture


@pytest.mark.parametrize(("name", "page"), PAGES.items(), ids=list(PAGES))
def test_no_generated_page_is_stale(name: str, page: Callable[[], str]) -> None:
    path = DOCS / name

    assert path.is_file(), "write it: make docs"
    assert path.read_text("utf-8") == page(), f"docs/{name} is stale: make docs"


@pytest.mark.slow
def test_the_picture_shows_what_the_demo_prints() -> None:
    """In the same words; a demo with fewer events has other numbers."""
    svg = (DOCS / picture.FILE).read_text("utf-8")

    assert _words(svg) == _words(picture.as_svg(picture.lines_of_demo(20_000))), (
        "the picture of the demo is stale: python -m docs.generate --picture"
    )


def test_the_picture_fetches_nothing() -> None:
    svg = (DOCS / picture.FILE).read_text("utf-8")

    assert set(re.findall(r"https?://[^/\"')]+", svg)) <= {"http://www.w3.org"}


def _words(svg: str) -> list[str]:
    text = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", svg))
    text = re.sub(r"&#\d+;", " ", text)
    text = re.sub(r"\b[0-9a-f]{8}\b", " ", text)  # a job's id
    return re.findall(r"[^\W\d_]{3,}", text)
