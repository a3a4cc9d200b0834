"""Constants inside ops: JSON values as frozen text, so that an op can be hashed and shared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from msgspec import Raw

from eventmig import codec
from eventmig.paths import Path, text


@dataclass(frozen=True, slots=True)
class Constant:
    """A JSON value that cannot change; `text` is its compact JSON."""

    text: str

    @classmethod
    def of(cls, value: object) -> Constant:
        """Freeze a value; raises `CodecError` where JSON cannot carry it."""
        return cls(codec.encode_checked(value).decode())

    @property
    def value(self) -> codec.Value:
        """The value, fresh each time: whoever gets it may change it."""
        value = _decoded(self.text)
        return codec.decode(self.text.encode()) if isinstance(value, dict | list) else value

    @property
    def raw(self) -> Raw:
        """The value as bytes that an encoder copies."""
        return Raw(self.text.encode())

    def __str__(self) -> str:
        return self.text


@lru_cache(1_000)
def _decoded(text: str) -> codec.Value:
    return codec.decode(text.encode())


@dataclass(frozen=True, slots=True)
class Ref:
    """The value that stands at another path of the same data."""

    path: Path

    def __str__(self) -> str:
        return f"the value of {text(self.path)}"


@dataclass(frozen=True, slots=True)
class FromMetadata:
    """The value at a path of the event's metadata, or `otherwise` where there is none."""

    path: Path
    otherwise: Constant | None

    def __str__(self) -> str:
        otherwise = "" if self.otherwise is None else f", otherwise {self.otherwise}"
        return f"metadata {text(self.path)}{otherwise}"


Source = Constant | Ref | FromMetadata
"""Where an added value comes from."""
