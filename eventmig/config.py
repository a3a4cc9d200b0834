"""The configuration: `eventmig.toml`, or `[tool.eventmig]` in `pyproject.toml`, one frozen value.

Also loads the user's registry and projections: only what the configuration names, as
`module:object`, found from the configuration's own folder.
"""

from __future__ import annotations

import difflib
import importlib
import json
import re
import sys
import tomllib
import traceback
from dataclasses import fields
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Literal, TypeVar, cast

import pydantic
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from eventmig.errors import ConfigError, EventmigError, Where
from eventmig.mapping import Mapping
from eventmig.stores.kurrent import url as kurrent_url

FILE = "eventmig.toml"
_FIELD = re.compile(r"\{[^{}]+\}")
T = TypeVar("T")


class ThrottleConfig(pydantic.BaseModel):
    """When a job waits: any one reason is enough.

    `flag_file` stops it while that file is there; `hours` (such as `22:00-06:00`, UTC) is when
    it may work. `load_query` yields one number from the source's database, `replica_query` one
    from the database `replica`: the job waits while it is above its limit. `share` is the share
    of time it works (above 0, at most 1).
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    flag_file: str | None = None
    hours: str | None = None
    share: float = pydantic.Field(default=1.0, gt=0, le=1)
    load_query: str | None = None
    load_above: float = 0
    replica: str | None = None
    replica_query: str | None = None
    replica_above: float = 5


class Config(pydantic.BaseModel):
    """Everything a command may need to know; every URL may hold `{release}`.

    Relative SQLite paths and the lock file are relative to `folder`, where the
    configuration lies. `workers` is 1, or 2 for a second process that reads and upcasts
    (in a rebuild: and folds).
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    folder: Path = pydantic.Field(exclude=True)
    registry: str | None = None
    projections: str | None = None
    history: str | None = None
    source: str | None = None
    target: str | None = None
    read_models: str | None = None
    naming: str = "{stream}"
    lock: str = "eventmig.lock"
    batch_size: pydantic.PositiveInt = 5_000
    workers: Literal[1, 2] = 1
    layouts: dict[str, dict[str, object]] = pydantic.Field(default_factory=dict)
    throttle: ThrottleConfig = ThrottleConfig()
    hooks: dict[str, str] = pydantic.Field(default_factory=dict)
    import_: dict[str, str | int | bool] = pydantic.Field(default_factory=dict, alias="import")

    @property
    def lock_path(self) -> Path:
        """Where the lock file is."""
        return self.folder / self.lock

    def mapping(self, given: dict[str, str] | None = None) -> Mapping:
        """`[import]`, with the parts `given` in its place; an empty text means none.

        Raises `ConfigError` naming the part that there is not.
        """
        parts = {**self.import_, **(given or {})}
        known = [f.name for f in fields(Mapping)]
        for part in parts:
            if part not in known:
                close = difflib.get_close_matches(part, known, n=1)
                raise ConfigError(
                    f"an event has no part {part!r}"
                    + (f"; did you mean {close[0]!r}?" if close else ""),
                    remedy=f"map some of: {', '.join(known)}",
                )
        for part in ("stream", "id", "type"):
            if set("{}") & set(_FIELD.sub("", str(parts.get(part, "")))):
                raise ConfigError(
                    f"the mapping of {part}: {parts[part]!r} has a brace without its other one",
                    remedy="write a field as {field}, as in stream='cart-{cart_id}'",
                )
        content = {name: None if field == "" else field for name, field in parts.items()}
        try:
            return pydantic.TypeAdapter(Mapping).validate_python(content)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"the mapping of {'.'.join(map(str, first['loc']))}: {first['msg']}",
                remedy="mend [import] in the configuration, or the --map option",
            ) from error

    def url(self, url: str, *, release: str | None = None) -> str:
        """A URL with its release filled in, its SQLite path made absolute, and the layout it
        names taken from `layouts`: so that it says everything by itself.
        """
        if "{release}" in url:
            if release is None:
                raise ConfigError(
                    f"the URL {url!r} needs a release, and there is none yet",
                    remedy="freeze one with `eventmig release NAME`, or name one: --release NAME",
                )
            url = url.replace("{release}", release)
        for field in _FIELD.findall(url):
            if difflib.get_close_matches(field.lower(), ["{release}"]):
                raise ConfigError(
                    f"a store's URL holds {field}, which stands for nothing",
                    remedy="write {release} where the release's name is to stand",
                )
        if kurrent_url.is_kurrent(url):
            return kurrent_url.with_ledger(url, self.url)
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError) as error:
            if "://" in url or "@" in url:  # may hold a password: never shown
                raise ConfigError(
                    "a store's URL cannot be read",
                    remedy="write it as sqlite:///history.db (escape @ and : in passwords)",
                ) from error
            raise ConfigError(
                f"{url!r} is not a URL", remedy=f"did you mean sqlite:///{url or 'history.db'}?"
            ) from error
        database = parsed.database
        if parsed.get_backend_name() == "sqlite" and database and not Path(database).is_absolute():
            parsed = parsed.set(database=str(self.folder / database))
        name = parsed.query.get("layout")
        if isinstance(name, str) and name in self.layouts:
            description = json.dumps({**self.layouts[name], "name": name})
            parsed = parsed.update_query_dict({"layout": description})
        try:
            return parsed.render_as_string(hide_password=False)
        except UnicodeEncodeError as error:
            raise ConfigError(
                f"the path {database!r} is no UTF-8, and cannot stand in a URL",
                remedy="rename that file or folder",
            ) from error


def find_config(path: Path | None, folder: Path) -> Config:
    """The configuration at `path`, else the one in `folder` or above it, else the defaults.

    Raises `ConfigError` naming the file and the key that is wrong.
    """
    if path is not None:
        if not path.is_file():
            raise ConfigError(
                "there is no configuration file here",
                where=Where(file=str(path)),
                remedy="write one with `eventmig init`, or name another with --config",
            )
        return _read(path)
    for above in (folder, *folder.parents):
        if (above / FILE).is_file():
            return _read(above / FILE)
        project = above / "pyproject.toml"
        if project.is_file() and "eventmig" in _toml(project).get("tool", {}):
            return _read(project)
    return Config(folder=folder)


def _toml(path: Path) -> dict[str, dict[str, object]]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"this is not TOML: {error}", where=Where(file=str(path)), remedy="mend that line"
        ) from error


def _read(path: Path) -> Config:
    content: dict[str, object] = dict(_toml(path))
    if path.name == "pyproject.toml":
        tool = cast("dict[str, dict[str, object]]", content.get("tool", {}))
        content = tool.get("eventmig", {})
    try:
        return Config.model_validate({**content, "folder": path.resolve().parent})
    except pydantic.ValidationError as error:
        raise ConfigError(
            "\n".join(_finding(e["loc"], e["type"], e["msg"]) for e in error.errors()),
            where=Where(file=str(path)),
            remedy="mend the key; the reference lists all of them",
        ) from error


def _finding(place: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(map(str, place))
    if kind != "extra_forbidden":
        return f"{key}: {message}"
    if place == ("tool",):
        return f"unknown key tool: in {FILE} the keys stand by themselves, without [tool.eventmig]"
    model = ThrottleConfig if place[0] == "throttle" and len(place) > 1 else Config
    known = [f.alias or name for name, f in model.model_fields.items() if name != "folder"]
    close = difflib.get_close_matches(str(place[-1]), known, n=1)
    hint = f"; did you mean {close[0]}?" if close else f" (there are: {', '.join(known)})"
    return f"unknown key {key}{hint}"


def _forget_others(package: str, folder: str) -> None:
    """Let a package be imported anew that was imported from the folder of another project."""
    loaded, here = sys.modules.get(package), PathFinder.find_spec(package, [folder])
    if loaded is None or here is None or here.origin is None or package in sys.stdlib_module_names:
        return
    if getattr(loaded.__spec__, "origin", None) != here.origin:
        for name in [n for n in sys.modules if n.partition(".")[0] == package]:
            del sys.modules[name]


def load_object(config: Config, name: str | None, *, key: str, kind: type[T]) -> T:
    """The object that a configuration key names as `module:object`.

    Its folder goes first on the import path, and a module of the same name that another
    project brought is not taken for it. Raises `ConfigError` where module or object
    is not there, or is of another kind; errors inside the user's module pass through.
    """
    if name is None:
        raise ConfigError(
            f"the configuration names no {key}",
            remedy=f'add {key} = "module:object" to {FILE} in {config.folder}, or run '
            "`eventmig init` in an empty folder to see one",
        )
    module_name, _, attribute = name.partition(":")
    if not attribute:
        raise ConfigError(
            f"{key} = {name!r} is not of the form module:object",
            remedy=f'write for example {key} = "upcasters:{key}"',
        )
    folder = str(config.folder)
    sys.path[:] = [folder, *(path for path in sys.path if path != folder)]
    _forget_others(module_name.partition(".")[0], folder)
    try:
        module = importlib.import_module(module_name)
    except EventmigError:
        raise
    except Exception as error:
        if not (isinstance(error, ModuleNotFoundError) and module_name.startswith(str(error.name))):
            raise _import_failed(module_name, error) from error
        raise ConfigError(
            f"there is no module {error.name!r} (for {key} = {name!r})",
            where=Where(file=folder),
            remedy="mend the name, or put the module beside the configuration",
        ) from error
    try:
        found: object = module
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        known = [n for n in vars(module) if not n.startswith("_")]
        close = difflib.get_close_matches(attribute, known, n=1)
        raise ConfigError(
            f"the module {module_name!r} has no {attribute!r}"
            + (f"; did you mean {close[0]!r}?" if close else ""),
            where=Where(file=getattr(module, "__file__", None)),
            remedy=f"mend {key} in the configuration",
        ) from error
    if not isinstance(found, kind):
        raise ConfigError(
            f"{name} must be a {kind.__name__} for {key}, and it is a {type(found).__name__}",
            where=Where(file=getattr(module, "__file__", None)),
            remedy=f"mend {key} in the configuration",
        )
    return found


def _import_failed(module: str, error: Exception) -> ConfigError:
    """What a user's module raised while it was imported, with file and line."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    where = Where(file=last.filename, line=last.lineno) if last else Where()
    if isinstance(error, SyntaxError):
        where = Where(file=error.filename, line=error.lineno)
    return ConfigError(
        f"importing {module} raised {type(error).__name__}: {error}",
        where=where,
        remedy="mend that line; nothing was read or written",
    )
