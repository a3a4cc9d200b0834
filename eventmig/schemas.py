"""Schemas: the model that one version of an event type has, and what it says of data.

A model is a msgspec Struct (or whatever else msgspec decodes: dataclass,
TypedDict), a pydantic model, or a JSON Schema given as a mapping. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeAlias, TypeVar, cast

import jsonschema_rs
import msgspec
import pydantic

from eventmig import codec, fingerprint
from eventmig.codec import Value
from eventmig.errors import OpError, RegistryError, ValidationError, Where
from eventmig.ops.shapes import inlined

JsonSchema: TypeAlias = "Mapping[str, Any]"
ModelClass: TypeAlias = "type[Any]"
Model: TypeAlias = "ModelClass | JsonSchema"
M = TypeVar("M", bound=type)

_MARK = "__eventmig_schema__"


def schema(type: str, version: int = 1) -> Callable[[M], M]:
    """Mark a model class as the schema of one event type's version.

    `version` is >= 1. The class itself is returned, unchanged but for the mark.
    """
    if version < 1:
        raise RegistryError(
            f"schema versions start at 1, and {type!r} was given {version}",
            where=Where(type=type, schema_version=version),
            remedy="count from 1: an event without a version is at version 1",
        )

    def mark(model: M) -> M:
        setattr(model, _MARK, (type, version))
        return model

    return mark


def marked(model: object) -> tuple[str, int] | None:
    """The (type, version) a class was marked with by `schema`, or None."""
    return cast("tuple[str, int] | None", getattr(model, "__dict__", {}).get(_MARK))


@dataclass(frozen=True)
class EventSchema:
    """One (type, version) with its model.

    `validate` and `decode` take stored bytes; both raise `ValidationError` naming
    the member. None of its methods has side effects.
    """

    type: str
    version: int
    model: Model = field(hash=False)

    @classmethod
    def of(cls, model: ModelClass) -> EventSchema:
        """The schema of a marked class; raises `RegistryError` for others."""
        mark = marked(model)
        if mark is None:
            raise RegistryError(
                f"{model.__qualname__} does not say which event type and version it is",
                remedy=f'put @schema("TypeName", version=1) above class {model.__name__}',
            )
        return cls(*mark, model)

    @property
    def name(self) -> str:
        """The type and version as people write them: `OrderPlaced v2`."""
        return f"{self.type} v{self.version}"

    @cached_property
    def json_schema(self) -> JsonSchema:
        """The model as JSON Schema (2020-12 for classes; as given for mappings)."""
        if isinstance(self.model, Mapping):
            return self.model
        if _is_pydantic(self.model):
            return cast(JsonSchema, pydantic.TypeAdapter(self.model).json_schema(by_alias=True))
        return msgspec.json.schema(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits; unchanged by names of classes, titles, descriptions, and order."""
        return fingerprint.of_value(cast(fingerprint.Plain, _essence(inlined(self.json_schema))))

    @cached_property
    def validate(self) -> Callable[[bytes], None]:
        """Raises `ValidationError` where the model rejects the data."""
        reject = self._reject
        if isinstance(self.model, Mapping):
            validator = jsonschema_rs.validator_for(dict(self.model))

            def by_schema(data: bytes) -> None:
                try:
                    value = msgspec.json.decode(data)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise reject(str(error), None) from error
                for fault in validator.iter_errors(value):
                    path = ".".join(map(str, fault.instance_path)) or None
                    raise reject(fault.message, path)

            return by_schema
        decode = self.decode

        def by_model(data: bytes) -> None:
            decode(data)

        return by_model

    @cached_property
    def parse(self) -> Callable[[bytes], object]:
        """`validate`, as fast as it goes: for a msgspec model, its parser with its own errors."""
        if isinstance(self.model, Mapping) or _is_pydantic(self.model):
            return self.validate
        return msgspec.json.Decoder(self.model).decode

    @property
    def struct(self) -> ModelClass | None:
        """The model, where it is a msgspec struct."""
        model = self.model
        if isinstance(model, type) and issubclass(model, msgspec.Struct):
            return model
        return None

    @cached_property
    def parse_lines(self) -> Callable[[bytes], object]:
        """`parse` for several events' data at once, each ended by a newline."""
        if isinstance(self.model, Mapping) or _is_pydantic(self.model):
            validate = self.validate

            def one_by_one(lines: bytes) -> None:
                for data in lines.split(b"\n")[:-1]:
                    validate(data)

            return one_by_one
        return msgspec.json.Decoder(self.model).decode_lines

    def parse_many(self, data: Sequence[bytes]) -> None:
        """`parse` for several events' data, whatever its spelling."""
        for start in range(0, len(data), codec.AT_ONCE):
            some = data[start : start + codec.AT_ONCE]
            lines = b"\n".join((*some, b""))
            if lines.count(b"\n") == len(some):
                self.parse_lines(lines)
            else:
                for text in some:
                    self.parse(text)

    @cached_property
    def decode(self) -> Callable[[bytes], Any]:
        """The data as an instance of the model (plain values for a JSON Schema)."""
        reject = self._reject
        if isinstance(self.model, Mapping):
            return lambda data: codec.decode(data)
        if _is_pydantic(self.model):
            validator = pydantic.TypeAdapter(self.model).validator

            def by_pydantic(data: bytes) -> object:
                try:
                    return validator.validate_json(data, strict=True)
                except pydantic.ValidationError as error:
                    first = error.errors()[0]
                    path = ".".join(map(str, first["loc"])) or None
                    raise reject(first["msg"], path) from error

            return by_pydantic
        decode = msgspec.json.Decoder(self.model).decode

        def by_msgspec(data: bytes) -> object:
            try:
                return decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                what, _, path = str(error).partition(" - at `$")
                raise reject(what, path.rstrip("`").lstrip(".") or None) from error

        return by_msgspec

    def decode_whole(self, data: Value) -> Any:
        """The data as the model, refused where the model would lose some of it.

        Both msgspec and pydantic skip unknown members by default; on the way to a
        write that is data loss, so it is an `OpError` naming the member.
        """
        instance = self.decode(codec.encode(data))
        lost = _lost(data, self.values_of(instance), "")
        if lost:
            raise OpError(
                f"the model of {self.name} would lose the member {lost}",
                where=Where(path=lost),
                remedy="add the member to the model, or drop it in a step before this one",
            )
        return instance

    def values_of(self, instance: object) -> Value:
        """An instance of the model as plain JSON values; `CodecError` where it cannot be."""
        if isinstance(self.model, Mapping):
            return codec.decode(codec.encode_checked(instance))
        if _is_pydantic(self.model):
            adapter = pydantic.TypeAdapter(self.model)
            return codec.decode(adapter.dump_json(instance, by_alias=True))
        return codec.decode(codec.encode(cast(Value, msgspec.to_builtins(instance))))

    def _reject(self, what: str, path: str | None) -> ValidationError:
        return ValidationError(
            f"{self.name} rejects the data: {what}",
            where=Where(type=self.type, schema_version=self.version, path=path),
            remedy="mend the step that made the data, or the model",
        )


def _is_pydantic(model: object) -> bool:
    return isinstance(model, type) and (
        issubclass(model, pydantic.BaseModel) or hasattr(model, "__pydantic_validator__")
    )


_NO_MEANING = {"title", "description", "examples", "$comment", "x-eventmig"}


def _essence(value: object) -> object:
    if isinstance(value, Mapping):
        return {
            key: _members(item) if key in {"properties", "$defs", "definitions"} else _essence(item)
            for key, item in value.items()
            if key not in _NO_MEANING
        }
    if isinstance(value, list | tuple):
        return [_essence(item) for item in value]
    return value


def _members(value: object) -> object:
    assert isinstance(value, Mapping)
    return {key: _essence(item) for key, item in value.items()}


def _lost(before: Value, after: Value, path: str) -> str:
    """The path of the first member or number of `before` that `after` does not hold, or ""."""
    if isinstance(before, dict):
        if not isinstance(after, dict):
            return ""
        for key, item in before.items():
            below = f"{path}.{key}" if path else key
            if key not in after:
                return below
            if lost := _lost(item, after[key], below):
                return lost
    elif isinstance(before, list) and isinstance(after, list):
        if len(after) != len(before):
            return path
        for index, item in enumerate(before):
            if lost := _lost(item, after[index], f"{path}[{index}]"):
                return lost
    elif isinstance(before, Decimal) and isinstance(after, int | float | Decimal):
        return "" if Decimal(codec.encode(after).decode()) == before else path
    return ""
