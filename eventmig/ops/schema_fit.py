"""Whether what ops yield fits what the next model's schema says; used by `eventmig check`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from eventmig import codec
from eventmig.ops.shapes import Object, Schema, alternatives, inlined, items_of


def differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Where data valid under `actual` (what the ops yield) would not be valid under `expected`.

    Readable lines, none where they fit. Types, required members, listed values,
    forbidden unknown members, items and nested objects are compared; what cannot be
    decided from them (patterns, ranges, recursion, a value that may be anything) is
    not reported, nor are members that neither schema names. Titles, descriptions,
    defaults and order do not count.
    """
    model, made = inlined(expected), inlined(actual)
    if not alternatives(made) or made == {"not": {}}:
        return ["the ops refuse every event that is valid before them"]
    return list(dict.fromkeys(_compare(model, made, "")))


def _compare(model: Schema, made: Schema, path: str) -> Iterable[str]:
    if _anything(made) or _anything(model):
        return
    wanted = alternatives(model)
    misfits: list[str] = []
    for alt in alternatives(made):
        candidates = [one for one in wanted if _type_fits(one["type"], alt["type"])]
        if not candidates:
            misfits.append(_described(alt))
            continue
        tries = [list(_compare_one(one, alt, path)) for one in candidates]
        yield from min(tries, key=len)
    if misfits:
        types = dict.fromkeys(_described(one) for one in wanted)
        yield (
            f"{_named(path)}: the ops yield {_listed(dict.fromkeys(misfits))}, "
            f"the model wants {_listed(types) or 'nothing'}"
        )


def _anything(schema: Schema) -> bool:
    return schema is True or (isinstance(schema, dict) and (not schema or "$ref" in schema))


def _type_fits(wanted: str, made: str) -> bool:
    return wanted == made or (wanted, made) == ("number", "integer")


def _compare_one(model: dict[str, Any], made: dict[str, Any], path: str) -> Iterable[str]:
    if "enum" in model:
        allowed = ", ".join(map(_text, model["enum"]))
        if "enum" not in made:
            if made["type"] not in ("object", "array"):
                yield f"{_named(path)}: the ops yield any {made['type']}, not only {allowed}"
            return
        for value in made["enum"]:
            if not any(codec.same(value, one) for one in model["enum"]):
                yield f"{_named(path)}: the ops yield {_text(value)}, the model wants {allowed}"
    elif model["type"] == "object":
        yield from _compare_members(model, made, path)
    elif model["type"] == "array" and "prefixItems" not in model and made.get("maxItems") != 0:
        yield from _compare(items_of(model), items_of(made), f"{path}[]")


def _compare_members(model: dict[str, Any], made: dict[str, Any], path: str) -> Iterable[str]:
    wanted, found = Object.of(model), Object.of(made)
    for key in wanted.required:
        slot = found.slot(key)
        if slot.always:
            continue
        may = "may leave it out" if found.members.get(key, False) is not False else "leave it out"
        yield f"{_named(_below(path, key))}: the ops {may}, the model requires it"
    for key, schema in found.members.items():
        if schema is False:
            continue
        if key in wanted.members:
            yield from _compare(wanted.members[key], schema, _below(path, key))
        elif wanted.additional is False:
            yield (
                f"{_named(_below(path, key))}: the ops yield it, the model forbids unknown members"
            )
        else:
            yield from _compare(wanted.additional, schema, _below(path, key))
    if isinstance(found.additional, dict) and wanted.additional is not False:
        yield from _compare(wanted.additional, found.additional, _below(path, "*"))


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _named(path: str) -> str:
    return f"`{path}`" if path else "the data"


def _text(value: Any) -> str:
    return codec.encode(value).decode()


def _described(alt: dict[str, Any]) -> str:
    return " or ".join(map(_text, alt["enum"])) if len(alt.get("enum", ())) == 1 else alt["type"]


def _listed(words: Iterable[str]) -> str:
    return " or ".join(words)
