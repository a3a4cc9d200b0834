"""JSON Schemas taken apart, so that the schema reading of ops can look into them and edit them.

A schema is read as its alternatives, each of one type. What is left out of an
alternative on the way (a keyword nobody here knows, a recursive `$ref`) makes it
wider, never narrower: whatever was valid stays valid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from eventmig import codec
from eventmig.codec import Value
from eventmig.paths import Path

Schema = bool | dict[str, Any]
"""`True` (or `{}`) is anything, `False` nothing."""

_OWN = {
    "object": "properties required additionalProperties patternProperties minProperties "
    "maxProperties propertyNames dependentRequired dependentSchemas dependencies "
    "unevaluatedProperties",
    "array": "items prefixItems additionalItems minItems maxItems uniqueItems contains "
    "minContains maxContains unevaluatedItems",
    "string": "minLength maxLength pattern format contentEncoding contentMediaType contentSchema",
    "number": "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf",
}
_TYPE_OF = {word: kind for kind, words in _OWN.items() for word in words.split()}
_NOTES = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
     "discriminator", "$comment", "$schema", "$id", "$defs", "definitions")
)  # fmt: skip
_TYPES = ("null", "boolean", "number", "string", "array", "object")
_MAPS = ("properties", "patternProperties", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "additionalItems", "not", "if", "then", "else",
           "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties")  # fmt: skip


class Refused(Exception):  # noqa: N818 - no error: it says that an alternative falls away
    """The op would refuse every value of this alternative."""


def inlined(schema: Mapping[str, Any]) -> Schema:
    """The schema with what its local `$ref`s name in their place; recursive ones stay."""
    root = dict(schema)

    def walk(part: Any, within: tuple[str, ...]) -> Any:
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            name = part["$ref"]
            if name in within:
                return {"$ref": name} if name.startswith(("#/$defs/", "#/definitions/")) else True
            target = walk(_pointed(root, name), (*within, name))
            beside = {k: v for k, v in part.items() if k != "$ref" and k not in _NOTES}
            return {"allOf": [target, walk(beside, within)]} if beside else target
        whole = {k: v for k, v in part.items() if k not in ("$defs", "definitions")}
        for word in _MAPS:
            if word in whole:
                whole[word] = {k: walk(v, within) for k, v in whole[word].items()}
        for word in _LISTS:
            if word in whole:
                whole[word] = [walk(v, within) for v in whole[word]]
        for word in _SINGLE:
            if word in whole:
                whole[word] = walk(whole[word], within)
        return whole

    result: Schema = walk(root, ("#",))
    return result


def _pointed(root: Any, name: str) -> Any:
    """What a local `$ref` points at; anything (`True`) for what is not there or elsewhere."""
    if not name.startswith("#"):
        return True
    for part in name[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(root, dict) or key not in root:
            return True
        root = root[key]
    return root


def alternatives(schema: Schema) -> list[dict[str, Any]]:
    """The schema as alternatives of one type each, without titles and the like."""
    if schema is False:
        return []
    if schema is True or "$ref" in schema:
        schema = {}
    if "const" in schema or "enum" in schema:
        return _by_kind(schema["enum"] if "enum" in schema else [schema["const"]])
    if "type" not in schema and not any(word in _TYPE_OF for word in schema):
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return _merged([alt for one in schema[word] for alt in alternatives(one)])
        if schema.get("allOf"):
            return min((alternatives(one) for one in schema["allOf"]), key=len)
    types = schema.get("type", _TYPES)
    return [
        {"type": kind} | {k: v for k, v in schema.items() if k not in _LOST and _belongs(k, kind)}
        for kind in ([types] if isinstance(types, str) else types)
    ]


_LOST = _NOTES | {"type", "anyOf", "oneOf", "allOf"}


def _belongs(word: str, kind: str) -> bool:
    return _TYPE_OF.get(word, kind) == ("number" if kind == "integer" else kind)


def _by_kind(values: Iterable[Any]) -> list[dict[str, Any]]:
    groups: dict[str, dict[bytes, Any]] = {}
    for value in values:
        groups.setdefault(codec.kind(value), {}).setdefault(codec.canonical(value), value)
    return [
        {"type": kind} if kind == "null" else {"type": kind, "enum": [*group.values()]}
        for kind, group in groups.items()
    ]


def _merged(alts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without doubles: values listed for one type together, and nothing beside the whole type."""
    whole = {alt["type"] for alt in alts if len(alt) == 1}
    if "number" in whole:
        whole.add("integer")
    listed = [alt for alt in alts if alt.keys() == {"type", "enum"}]
    grouped = {g["type"]: g for g in _by_kind(v for alt in listed for v in alt["enum"])}
    result: dict[bytes, dict[str, Any]] = {}
    for alt in alts:
        if alt["type"] in whole:
            wider = "number" if "number" in whole and alt["type"] == "integer" else alt["type"]
            alt = {"type": wider}
        elif alt.keys() == {"type", "enum"}:
            alt = grouped[alt["type"]]
        result.setdefault(codec.canonical(cast(Value, alt)), alt)
    return [*result.values()]


def union(schemas: Iterable[Schema]) -> Schema:
    """What is valid under any of them, in the shortest form known here."""
    alts = _merged([alt for one in schemas for alt in alternatives(one)])
    if not alts:
        return False
    plain = [alt["type"] for alt in alts if len(alt) == 1]
    if set(_TYPES) <= set(plain):
        return True
    if len(alts) == 1:
        only = alts[0]
        if only.keys() != {"type", "enum"}:
            return only
        values = only["enum"]
        return {"enum": values} if len(values) > 1 else {"const": values[0]}
    if len(plain) == len(alts):
        return {"type": plain}
    return {"anyOf": [union([alt]) for alt in alts]}


class Slot(NamedTuple):
    """What may stand at a place, and whether there is always something."""

    schema: Schema
    always: bool


NOWHERE = Slot(False, False)


@dataclass
class Object:
    """An alternative of type object, to be edited. A member with the schema False is absent."""

    members: dict[str, Schema]
    required: list[str]
    additional: Schema

    @classmethod
    def of(cls, alt: Mapping[str, Any]) -> Object:
        if "enum" in alt:
            members: dict[str, Schema] = {}
            for key in {key: None for value in alt["enum"] for key in value}:
                members[key] = union({"const": v[key]} for v in alt["enum"] if key in v)
            return cls(members, [k for k in members if all(k in v for v in alt["enum"])], False)
        additional = True if "patternProperties" in alt else alt.get("additionalProperties", True)
        return cls(dict(alt.get("properties", {})), list(alt.get("required", ())), additional)

    def slot(self, key: str) -> Slot:
        return Slot(self.members.get(key, self.additional), key in self.required)

    def put(self, key: str, schema: Schema, always: bool) -> None:
        """Set a member; always there and never valid means that nothing is."""
        if always and schema is False:
            raise Refused
        self.members[key] = schema
        if always and key not in self.required:
            self.required.append(key)
        elif not always and key in self.required:
            self.required.remove(key)

    def take(self, key: str) -> Slot:
        """What stood there; nothing does any more."""
        slot = self.slot(key)
        self.put(key, False, always=False)
        return slot

    def vacant(self, key: str) -> None:
        """The op refuses data with this member: what is left has none."""
        if key in self.required:
            raise Refused
        self.put(key, False, always=False)

    def schema(self) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "object", "properties": self.members}
        if self.required:
            made["required"] = self.required
        if self.additional is not True and self.additional != {}:
            made["additionalProperties"] = self.additional
        return made


def items_of(alt: Mapping[str, Any]) -> Schema:
    """What any item of an array alternative may be."""
    if "enum" in alt:
        return union({"const": item} for value in alt["enum"] for item in value)
    items = alt.get("items", True)
    if isinstance(items, list):
        return True
    return union([*alt["prefixItems"], items]) if "prefixItems" in alt else items


def array(items: Schema, least: int = 0, most: int | None = None) -> dict[str, Any]:
    """An array alternative."""
    made: dict[str, Any] = {"type": "array"}
    if items is False or most == 0:
        return made | {"maxItems": 0}
    if items is not True and items != {}:
        made["items"] = items
    return made | ({"minItems": least} if least else {}) | ({"maxItems": most} if most else {})


def lookup(schema: Schema, path: Path) -> Slot:
    """What may stand at a path."""
    if not path:
        return Slot(schema, schema is not False)
    part, rest, found = path[0], path[1:], list[Slot]()
    for alt in alternatives(schema):
        if alt["type"] == "object" and isinstance(part, str):
            here = Object.of(alt).slot(part)
        elif alt["type"] == "array" and not isinstance(part, str):
            here = Slot(items_of(alt), False)
        else:
            here = NOWHERE
        below = lookup(here.schema, rest)
        found.append(Slot(below.schema, here.always and below.always))
    return Slot(union(s.schema for s in found), bool(found) and all(s.always for s in found))


def at(schema: Schema, path: Path, change: Callable[[Schema], Schema]) -> Schema:
    """The schema after a change to what stands at a path; where nothing does, nothing changes."""
    if not path:
        return change(schema)
    part, rest, alts = path[0], path[1:], list[Schema]()
    for alt in alternatives(schema):
        if alt["type"] == "object" and isinstance(part, str):
            whole = Object.of(alt)
            slot = whole.slot(part)
            new = at(slot.schema, rest, change) if slot.schema is not False else False
            if codec.same(new, slot.schema):  # not ==, to which 0 and false are the same
                alts.append(alt)
            elif new is not False or not slot.always:
                whole.put(part, new, slot.always)
                alts.append(whole.schema())
        elif alt["type"] == "array" and not isinstance(part, str):
            items = items_of(alt)
            new = at(items, rest, change) if items is not False else False
            alts.append(alt if codec.same(new, items) else array(union([items, new])))
        else:
            alts.append(alt)
    return union(alts)


def by_type(schema: Schema, kind: str, change: Callable[[dict[str, Any]], Schema]) -> Schema:
    """The alternatives of one type changed; the op refuses all others."""
    return union(_attempts(schema, kind, change, others=False))


def in_objects(schema: Schema, change: Callable[[Object], None], *, others: bool) -> Schema:
    """Every object alternative edited; `others`: whether the op leaves the rest alone."""

    def edit(alt: dict[str, Any]) -> Schema:
        whole = Object.of(alt)
        change(whole)
        return whole.schema()

    return union(_attempts(schema, "object", edit, others=others))


def _attempts(
    schema: Schema, kind: str, change: Callable[[dict[str, Any]], Schema], *, others: bool
) -> Iterable[Schema]:
    for alt in alternatives(schema):
        if alt["type"] == kind:
            try:
                yield change(alt)
            except Refused:
                continue
        elif others:
            yield alt


def either(schemas: Sequence[Schema]) -> Schema:
    """Like `union`, with objects put together member by member, and lists item by item.

    Readable, a little wider, and no larger than its largest part: without this, every
    `when` would double the schema.
    """
    if all(one is schemas[0] for one in schemas):
        return schemas[0]
    alts = [alt for one in schemas for alt in alternatives(one)]
    objects = [alt for alt in alts if alt["type"] == "object"]
    lists = [alt for alt in alts if alt["type"] == "array" and "enum" not in alt]
    rest = [alt for alt in alts if not any(alt is one for one in (*objects, *lists))]
    if len(objects) > 1:
        objects = alternatives(_one_object([Object.of(alt) for alt in objects]))
    if len(lists) > 1:
        least = min(alt.get("minItems", 0) for alt in lists)
        lists = alternatives(array(either([items_of(alt) for alt in lists]), least, None))
    return union([*objects, *lists, *rest])


def _one_object(objects: list[Object]) -> Schema:
    whole = Object({}, [], either([one.additional for one in objects]))
    for key in {key: None for one in objects for key in (*one.members, *one.required)}:
        slots = [one.slot(key) for one in objects]
        whole.put(key, either([s.schema for s in slots]), all(s.always for s in slots))
    return whole.schema()


def shown(schema: Schema) -> dict[str, Any]:
    """The schema as it is handed out: absent members not listed, never a bare boolean."""

    def walk(part: Schema) -> Schema:
        if isinstance(part, bool):
            return part
        made = dict(part)
        if "properties" in made:
            members = {k: walk(v) for k, v in made["properties"].items() if v is not False}
            made["properties"] = members
        for word in ("items", "additionalProperties"):
            if word in made and not isinstance(made[word], list):
                made[word] = walk(made[word])
        if "anyOf" in made:
            made["anyOf"] = [walk(one) for one in made["anyOf"]]
        return made

    whole = walk(schema)
    if isinstance(whole, bool):
        return {} if whole else {"not": {}}
    return whole
