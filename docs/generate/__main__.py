"""Write the generated pages: `python -m docs.generate [--picture]`.

`--picture` also makes the picture of the demo anew, which takes as long as the demo.
"""

from __future__ import annotations

import sys

from docs.generate import DOCS, PAGES, picture


def main(arguments: list[str]) -> None:
    """Write what is stale, and say what was written."""
    made = {DOCS / name: page() for name, page in PAGES.items()}
    if "--picture" in arguments:
        made[DOCS / picture.FILE] = picture.draw()
    for path, text in made.items():
        if not path.is_file() or path.read_text("utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            sys.stdout.write(f"wrote docs/{path.relative_to(DOCS)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
