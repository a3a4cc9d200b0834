"""Every link leads somewhere, every page can be found, and nothing of one machine is in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate import DOCS
from tests.docs.pages import pages
from tests.docs.shell import HOME, ROOT

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"`[^`\n]*`")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_PATHS = re.compile(r"(?<![\w:/.])/(?:home|root|tmp|work|Users|usr)/[\w/.-]*")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _links(page):
        target, _, anchor = link.partition("#")
        path = page if not target else page.parent / target
        assert path.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in _anchors(path), f"{link}: there is no such heading"


def test_every_page_can_be_reached() -> None:
    index = DOCS / "README.md"
    linked = {(index.parent / link.split("#")[0]).resolve() for link in _links(index)}

    assert set(pages()) - linked <= {index, ROOT / "README.md"}
    assert "docs/README.md" in _links(ROOT / "README.md")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_machine(page: Path) -> None:
    found = _PATHS.findall(page.read_text("utf-8"))

    assert [path for path in found if not path.startswith(HOME)] == []


def test_the_tests_named_by_the_invariants_exist() -> None:
    named = _TEST.findall((DOCS / "explanation" / "invariants.md").read_text("utf-8"))

    assert len(named) > 20
    for file, test in named:
        path = ROOT / file
        assert path.is_file(), f"there is no {file}"
        assert re.search(rf"^ *def {test}\(", path.read_text("utf-8"), re.MULTILINE), (
            f"{file} has no {test}"
        )


def _links(page: Path) -> list[str]:
    text = _CODE.sub("", _FENCED.sub("", page.read_text("utf-8")))
    return [link for link in _LINK.findall(text) if "://" not in link]


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = _FENCED.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}
