"""The generated pages of the documentation: `python -m docs.generate` writes them.

Each module has one function that returns a page's text, made from the code alone. A test fails
when a page is not what its function returns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.generate import cli, config, errors, layouts, ops, states

DOCS = Path(__file__).resolve().parents[1]

PAGES: dict[str, Callable[[], str]] = {
    "reference/cli.md": cli.page,
    "reference/config.md": config.page,
    "reference/errors.md": errors.page,
    "reference/layouts.md": layouts.page,
    "reference/ops.md": ops.page,
    "explanation/states.md": states.page,
}
"""Every generated page by its path below docs/."""
