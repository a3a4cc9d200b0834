"""Every block of every page runs, and prints what the page shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.docs.pages import Runner, pages
from tests.docs.shell import ROOT, Shell, same

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the pages' commands need a POSIX")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_runs(page: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()

    Runner(page, Shell(folder)).run()


def test_a_page_that_shows_something_else_fails(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo hello\ngoodbye\n```\n")
    folder = tmp_path / "shop"
    folder.mkdir()

    with pytest.raises(AssertionError, match=re.escape("page.md, line 1")):
        Runner(page, Shell(folder)).run()


def test_a_page_can_be_corrected(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```console\n$ echo hello\ngoodbye\n$ echo $?\n0\n```\nmore\n")
    folder = tmp_path / "shop"
    folder.mkdir()
    runner = Runner(page, Shell(folder), correct=True)

    runner.run()

    assert runner.corrected == "text\n\n```console\n$ echo hello\nhello\n$ echo $?\n0\n```\nmore\n"


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("a\nb\n", "a\nb\n"),
        ("a\n…\nd\n", "a\nb\nc\nd\n"),
        ("a …\n", "a b c\n"),
        ("job 00000000, 1.0 s\n", "job 3f2f2656, 12.3 s\n"),
    ],
)
def test_what_counts_as_shown(shown: str, printed: str) -> None:
    assert same(shown, printed)


@pytest.mark.parametrize(("shown", "printed"), [("a\n", "b\n"), ("", "a\n"), ("a\n", "")])
def test_what_does_not(shown: str, printed: str) -> None:
    assert not same(shown, printed)
