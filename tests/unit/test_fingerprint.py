"""Fingerprints: equal where the meaning is, other where it may not be."""

from __future__ import annotations

from typing import Any

from eventmig import fingerprint


def test_comments_docstrings_and_formatting_do_not_count() -> None:
    def plain(data: dict[str, Any]) -> dict[str, Any]:
        return {"a": data["a"]}

    first = fingerprint.of_function(plain)

    def plain(data: dict[str, Any]) -> dict[str, Any]:  # type: ignore[no-redef]
        """Says something."""
        # and more
        return {
            "a": data["a"],
        }

    assert fingerprint.of_function(plain) == first


def test_another_constant_is_another_fingerprint() -> None:
    def one() -> int:
        return 1

    first = fingerprint.of_function(one)

    def one() -> int:  # type: ignore[no-redef]
        return 2

    assert fingerprint.of_function(one) != first


def test_two_lambdas_on_one_line_are_told_apart() -> None:
    up, down = (lambda value: value + 1), (lambda value: value - 1)

    assert fingerprint.of_function(up) != fingerprint.of_function(down)
    assert fingerprint.of_function(up) == fingerprint.of_function(lambda value: value + 1)


def test_values_are_hashed_whatever_their_order() -> None:
    assert fingerprint.of_value({"a": 1, "b": 2}) == fingerprint.of_value({"b": 2, "a": 1})
    assert fingerprint.of_value({"a": 1}) != fingerprint.of_value({"a": "1"})
