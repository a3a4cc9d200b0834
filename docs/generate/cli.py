"""The page about the command line, from the commands themselves."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from docs.generate.text import NOTE, code, table
from eventmig.cli.app import app
from eventmig.cli.exits import MEANING, ExitCode

_HEAD = f"""\
# The command line

{NOTE}
`eventmig [OPTIONS] COMMAND [ARGUMENTS]`. `python -m eventmig` is the same.

Results go to standard output; progress, warnings and errors go to standard error. Without a
terminal, progress is a line now and then. Every command has `--json`: its result as one line of
JSON, and an error as `{{"error": {{"kind", "what", "where", "remedy"}}}}`.

Behind each command is a typed function in `eventmig.commands`: it takes a `Project` and returns
what `--json` prints. `import` and `export` are `import_history` and `export_history` there, for
`import` is a word of Python's own.

A **URL** names a store: `sqlite:///history.db` (relative to the configuration),
`sqlite:////var/lib/shop/history.db` (absolute). `?tables=v2_` names a set of tables in the file,
`?release=2` the streams of one release in them. `{{release}}` in a configured URL is filled in.
"""


def page() -> str:
    """The whole page."""
    group: Any = get_command(app)
    parts = [_HEAD, "## Options before the command\n", _options(group.params)]
    parts.append("## Commands\n")
    index = [
        (f"[`{name}`](#{_anchor(name)})", _first(command.help))
        for name, command in _commands(group)
    ]
    parts.append(table(["command", "what it does"], index))
    for name, command in _commands(group):
        parts += [
            f"### `{name}`\n",
            _first(command.help) + "\n",
            code(_usage(name, command)) + "\n",
        ]
        parts.append(_options([p for p in command.params if p.name != "json"]))
    parts.append("## Exit codes\n")
    parts.append(table(["code", "meaning"], [(str(c.value), MEANING[c]) for c in ExitCode]))
    return "\n".join(part for part in parts if part)


def _commands(group: Any, before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found += _commands(command, f"{before}{name} ")
        else:
            found.append((f"{before}{name}", command))
    return found


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _first(text: str | None) -> str:
    return " ".join((text or "").split())


def _is_option(parameter: Any) -> bool:
    return bool(parameter.opts[0].startswith("-"))


def _usage(name: str, command: Any) -> str:
    arguments = [p for p in command.params if not _is_option(p)]
    shown = [_metavar(p) if p.required else f"[{_metavar(p)}]" for p in arguments]
    return " ".join(["eventmig", name, "[OPTIONS]", *shown])


def _metavar(parameter: Any) -> str:
    name: str = (parameter.metavar or parameter.name).upper().rstrip("_")
    return f"{name}…" if parameter.nargs == -1 else name


def _options(parameters: list[Any]) -> str:
    rows: list[tuple[str, str, str]] = []
    for it in parameters:
        if _is_option(it):
            names = ", ".join(code(n) for n in sorted(it.opts, key=len, reverse=True))
            if it.metavar:
                names += f" {code(it.metavar)}"
        else:
            names = code(_metavar(it))
        what = _first(it.help)
        if getattr(it, "envvar", None):
            what += f" Environment: {code(it.envvar)}."
        rows.append((names, what, _default(it)))
    if not rows:
        return ""
    return table(["", "what it says", "default"], rows)


def _default(parameter: Any) -> str:
    default = parameter.default
    if default is None or default is False or default == () or callable(default):
        return "required" if parameter.required else ""
    if "Ellipsis" in type(default).__name__ or "sentinel" in repr(default).lower():
        return "required" if parameter.required else ""
    return code(default)
