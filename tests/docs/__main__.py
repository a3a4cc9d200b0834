"""Put into the pages what their commands print now: `python -m tests.docs [PAGE…]`.

For a person who then reads the difference. Pages that show the right thing stay as they are.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.pages import Runner, pages
from tests.docs.shell import ROOT, Shell


def main(names: list[str]) -> None:
    """Correct these pages, or all."""
    chosen = [Path(name).resolve() for name in names] or pages()
    with tempfile.TemporaryDirectory() as scratch:
        for number, page in enumerate(chosen):
            folder = Path(scratch) / f"page{number}"
            folder.mkdir()
            runner = Runner(page, Shell(folder), correct=True)
            runner.run()
            if runner.corrected != page.read_text("utf-8"):
                page.write_text(runner.corrected, "utf-8")
                sys.stdout.write(f"corrected {page.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
