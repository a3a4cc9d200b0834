"""The pages, and what their blocks mean.

    python    executed, one namespace per page (`>>>` as a doctest)
    console   `$ command` lines, run in the page's folder; what follows must be printed.
              A command may fail only where `$ echo $?` comes next
    sh        a script for bash, which must succeed
    toml, jsonl, and python whose first line is a comment with a path: a file, written to it
              (`# upcasters/orders.py`; `…, at the end` appends). `<!-- file: NAME -->` before
              a block says the same where the language has no comments
    mermaid, text   pictures and layouts: nothing to run

Out of the reader's sight, `<!-- setup: init -->` runs `eventmig init` in the page's folder, and
`<!-- setup: kurrentdb -->` and `<!-- setup: postgres -->` start a server where the page says it is
(`esdb://localhost:2113`, `postgresql://ada@db/shop`).
"""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url
from sybil import Document, Example, Region
from sybil.evaluators.doctest import DocTestEvaluator
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.abstract.doctest import DocTestStringParser
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer
from sybil.region import Lexeme
from sybil.typing import Evaluator

from tests import postgres
from tests.docs.shell import ROOT, Shell, same
from tests.kurrent_server.server import running

LANGUAGES = frozenset({"python", "console", "sh", "toml", "jsonl", "json", "mermaid", "text"})
_BLOCK = RawFencedCodeBlockLexer(re.compile(r"(?P<language>[^\n]*)\n"))
_SETUP = re.compile(r"^<!-- setup: (?P<what>\w+) -->$", re.MULTILINE)
_FILE = re.compile(r"<!-- file: (?P<name>[\w./-]+) -->\n+\Z")
_HEADER = re.compile(r"# (?P<name>[\w/-]+\.(?:py|toml|yml))(?P<append>, at the end)?\n")

# What a reader does once, before anything else: the targets of make are checked to be there,
# and the wheel's test installs and runs it.
_SET_UP = re.compile(r"(make|git clone|cd|python -m (venv|pip)|pip install|\. \S*activate)\b")


def pages() -> list[Path]:
    """README and every page below docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass
class Runner:
    """Runs the blocks of one page, in order, in one folder.

    With `correct`, output that is not what the page shows is no failure: `corrected`
    then is the page with what was printed.
    """

    path: Path
    shell: Shell
    correct: bool = False
    _servers: ExitStack = field(default_factory=ExitStack)
    _new: list[tuple[int, int, str]] = field(default_factory=list)

    def run(self) -> None:
        """Raise for the first block that fails, naming page and line."""
        document = Document.parse(str(self.path), self._blocks)
        with _in_folder(self.shell.folder), self._servers:
            for example in document.examples():
                example.evaluate()
        self._text = document.text

    @property
    def corrected(self) -> str:
        """The page with the output that its commands printed now."""
        text = self._text
        for start, end, new in reversed(self._new):
            text = text[:start] + new + text[end:]
        return text

    def _blocks(self, document: Document) -> Iterable[Region]:
        for found in _SETUP.finditer(document.text):
            set_ups: dict[str, Evaluator] = {
                "init": self._init,
                "kurrentdb": self._kurrentdb,
                "postgres": self._postgres,
            }
            region = Region(found.start(), found.end(), parsed=found["what"])
            region.evaluator = set_ups[found["what"]]
            yield region
        for region in _BLOCK(document):
            language = region.lexemes["language"]
            source = region.lexemes["source"]
            assert language in LANGUAGES, f"{self.path}: a block in {language!r}"
            named = _FILE.search(document.text[: region.start])
            header = _HEADER.match(source)
            region.parsed = source
            if named is not None:
                region.evaluator = self._file(named["name"])
            elif language in ("python", "toml") and header is not None:
                region.evaluator = self._file(header["name"], append=bool(header["append"]))
            elif language == "python" and source.startswith(">>>"):
                for inner in DocTestStringParser(DocTestEvaluator())(source, document.path):
                    inner.adjust(region, source)
                    yield inner
                continue
            else:
                runs: dict[str, Evaluator] = {
                    "python": self._python,
                    "console": self._console,
                    "sh": self._script,
                    "toml": _toml,
                    "json": _json,
                    "jsonl": _jsonl,
                }
                region.evaluator = runs.get(language)
            yield region

    def _python(self, example: Example) -> None:
        shown = example.parsed
        example.parsed = Lexeme(self.shell.meant(shown), shown.offset, shown.line_offset)
        PythonEvaluator()(example)

    def _init(self, example: Example) -> str | None:
        self.shell.run("eventmig init")
        return None if self.shell.code == 0 else "eventmig init failed"

    def _kurrentdb(self, example: Example) -> None:
        node = self._servers.enter_context(running())
        self.shell.really["esdb://localhost:2113?Tls=false"] = node.url

    def _postgres(self, example: Example) -> None:
        server = postgres.start()
        self._servers.callback(server.remove)
        url = make_url(self._servers.enter_context(server.database()))
        if "host" in url.query:  # where it stands before other options
            url = url.set(host=quote(str(url.query["host"]), safe=""))
        self.shell.really["postgresql://ada@db/shop"] = url.set(query={}).render_as_string(
            hide_password=False
        )

    def _file(self, name: str, *, append: bool = False) -> Callable[[Example], None]:
        def write(example: Example) -> None:
            path = self.shell.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if append else "w", encoding="utf-8") as file:
                file.write(("\n\n" if append else "") + self.shell.meant(example.parsed))
            # A module that was written anew a moment ago must not be taken from a cache.
            for gone in [m for m in sys.modules if m.split(".")[0] in _names(self.shell.folder)]:
                del sys.modules[gone]
            importlib.invalidate_caches()

        return write

    def _script(self, example: Example) -> str | None:
        printed = self.shell.run(example.parsed)
        return None if self.shell.code == 0 else f"exit code {self.shell.code}:\n{printed}"

    def _console(self, example: Example) -> str | None:
        shown_then: list[str] = []
        wrong: list[str] = []
        commands = list(_commands(example.parsed))
        for number, (lines, command, shown) in enumerate(commands):
            if _SET_UP.match(command):
                shown_then.append(lines + shown)
                if command.startswith("make "):
                    wrong += _not_in_makefile(command)
                continue
            printed = self.shell.run(command)
            asks = number + 1 < len(commands) and commands[number + 1][1] == "echo $?"
            if self.shell.code and not asks and command != "echo $?":
                wrong.append(f"$ {command}\nexit code {self.shell.code}\n{printed}")
            right = same(shown, printed)
            shown_then.append(lines + (shown if right else printed))
            if not right and not self.correct:
                wrong.append(f"$ {command}\n--- the page shows\n{shown}--- it printed\n{printed}")
        if self.correct:
            self._replace(example, "".join(shown_then))
        return "\n".join(wrong) or None

    def _replace(self, example: Example, new: str) -> None:
        text = example.document.text
        start = text.index("\n", example.start) + 1
        end = text.rindex("\n", 0, example.end) + 1
        self._new.append((start, end, new))


def _commands(block: str) -> Iterator[tuple[str, str, str]]:
    """Of each command: its lines as they stand, the command, and the output after it."""
    lines = block.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        assert lines[at].startswith("$ "), f"no command: {lines[at]!r}"
        first = at
        while lines[at].rstrip("\n").endswith("\\"):
            at += 1
        at += 1
        stands = "".join(lines[first:at])
        out = at
        while at < len(lines) and not lines[at].startswith("$ "):
            at += 1
        command = re.sub(r"\\\n(> )?\s*", "", stands.removeprefix("$ ")).strip()
        yield stands, command, "".join(lines[out:at])


def _not_in_makefile(command: str) -> list[str]:
    targets = [word for word in command.split()[1:] if "=" not in word and word[0] not in "-'\""]
    makefile = (ROOT / "Makefile").read_text("utf-8")
    return [f"make has no {t}" for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)]


def _toml(example: Example) -> None:
    tomllib.loads(example.parsed)


def _json(example: Example) -> None:
    json.loads(example.parsed)


def _jsonl(example: Example) -> None:
    for line in example.parsed.splitlines():
        json.loads(line)


def _names(folder: Path) -> set[str]:
    """What Python would import from a folder, and from the repository's own domain."""
    found = {p.stem for p in folder.iterdir() if p.suffix == ".py" or p.is_dir()}
    return found | {"upcasters", "projections"}


@contextmanager
def _in_folder(folder: Path) -> Iterator[None]:
    """Work in a folder whose modules come before the repository's own; undone at the end."""
    here, path = os.getcwd(), list(sys.path)
    kept = {n: m for n, m in sys.modules.items() if n.split(".")[0] in ("upcasters", "projections")}
    written = sys.dont_write_bytecode
    for name in kept:
        del sys.modules[name]
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        os.chdir(here)
        sys.path[:] = path
        sys.dont_write_bytecode = written
        for name in [n for n in sys.modules if n.split(".")[0] in _names(folder)]:
            del sys.modules[name]
        sys.modules.update(kept)
