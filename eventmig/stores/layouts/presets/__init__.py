"""The descriptions of known systems, one TOML file each: `NAME.DIALECT.toml`.

An own description is such a table too, in the configuration. One that names a
`preset` takes everything from it that it does not say itself.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import cast

from pydantic import ValidationError

from eventmig.errors import ConfigError
from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.parts import Dialect


def resolve(text: str, dialect: Dialect) -> Layout:
    """The layout that the option `layout` of a URL means: a preset's name, or a description.

    A description is JSON text with a `name`: that is how the configuration hands its own
    ones over. Raises `ConfigError`.
    """
    if not text.startswith("{"):
        return preset(text, dialect)
    description = json.loads(text)
    return described(description.pop("name"), description, dialect)


def preset(name: str, dialect: Dialect) -> Layout:
    """The preset of this name for this kind of database. Raises `ConfigError`."""
    return described(name, _table(name, dialect), dialect)


@cache
def presets() -> tuple[Layout, ...]:
    """Every preset, by name and kind of database."""
    return tuple(preset(name, dialect) for name, dialect in _known())


def described(name: str, description: Mapping[str, object], dialect: Dialect) -> Layout:
    """The layout of a description. Raises `ConfigError` naming every key that is wrong."""
    whole = {**_completed(description, dialect), "name": name, "dialect": dialect}
    try:
        return Layout.model_validate_json(json.dumps(whole))
    except ValidationError as error:
        lines = (
            f"{'.'.join(map(str, e['loc'])) or 'the whole'}: {e['msg']}" for e in error.errors()
        )
        raise ConfigError(
            f"the description of the layout {name!r} is not right:\n  " + "\n  ".join(lines),
            remedy="mend [layouts] in the configuration; the reference of layouts "
            "lists every key, and `eventmig inspect URL` proposes a description",
        ) from error


def _completed(description: Mapping[str, object], dialect: Dialect) -> dict[str, object]:
    """A description with what it leaves out taken from the preset it names."""
    own = {key: value for key, value in description.items() if key != "preset"}
    if "preset" not in description:
        return own
    base = _table(str(description["preset"]), dialect)
    return _merged(_completed(base, dialect), own)


def _merged(base: Mapping[str, object], own: Mapping[str, object]) -> dict[str, object]:
    out = dict(base)
    for key, value in own.items():
        below = out.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and key != "where":
            out[key] = _merged(below, value)
        else:
            out[key] = value
    return out


@cache
def _known() -> tuple[tuple[str, Dialect], ...]:
    names = sorted(f.name for f in files(__name__).iterdir() if f.name.endswith(".toml"))
    parts = (name.split(".") for name in names)
    return tuple((name, cast(Dialect, dialect)) for name, dialect, _ in parts)


@cache
def _table(name: str, dialect: Dialect) -> Mapping[str, object]:
    if (name, dialect) not in _known():
        here = [known for known, kind in _known() if kind == dialect]
        close = difflib.get_close_matches(name, here, n=1)
        elsewhere = any(known == name for known, _ in _known())
        raise ConfigError(
            f"there is no layout {name!r} for {dialect}"
            + (", only for another kind of database" if elsewhere else "")
            + (f"; did you mean {close[0]!r}?" if close and not elsewhere else ""),
            remedy=f"presets for {dialect}: {', '.join(here)}; describe your own as "
            f"[layouts.{name if name.isidentifier() else 'NAME'}]",
        )
    return tomllib.loads(files(__name__).joinpath(f"{name}.{dialect}.toml").read_text("utf-8"))
