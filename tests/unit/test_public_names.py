"""The package's public names: each is found when it is asked for, and none before."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import eventmig


def test_each_public_name_is_found_where_type_checkers_look_for_it() -> None:
    tree = ast.parse(Path(eventmig.__file__).read_text())
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    declared = {}
    for node in checked.body:
        assert isinstance(node, ast.ImportFrom)
        declared |= {alias.name: node.module for alias in node.names}
    assert sorted(declared) == sorted(eventmig.__all__)
    assert set(eventmig.__all__) <= set(dir(eventmig))
    for name, module in declared.items():
        found = getattr(eventmig, name)
        assert found is getattr(sys.modules[str(module)], name)


def test_no_other_name_is_one() -> None:
    with pytest.raises(AttributeError, match="module 'eventmig' has no attribute 'Regestry'"):
        eventmig.Regestry  # type: ignore[attr-defined]  # noqa: B018


def test_nothing_is_imported_before_it_is_needed() -> None:
    """Else Ctrl-C would find a command line that cannot say so yet."""
    found = "import sys; import eventmig.cli; print(*(n for n in sys.modules if 'eventmig' in n))"
    done = subprocess.run([sys.executable, "-c", found], capture_output=True, text=True, check=True)
    ours = [name for name in done.stdout.split() if not name.startswith("__editable__")]
    assert ours == ["eventmig", "eventmig.cli"]
