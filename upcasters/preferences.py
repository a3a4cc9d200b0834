"""What customers prefer: once in streams of their own, now part of the customer's."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, UnsetType

from eventmig import merge_streams, ops, schema, split_upcaster, upcaster
from upcasters.base import Data

# --- PreferencesSaved: v1 → v2 → one fact each ----------------------------------------------


@schema("PreferencesSaved", version=1)
class PreferencesSavedV1(Data, frozen=True):
    """The whole page of preferences, in the words of the page."""

    customer_id: str
    newsletter: Literal["Y", "N"]
    lang: Literal["english", "deutsch", "français"] | UnsetType = UNSET


@schema("PreferencesSaved", version=2)
class PreferencesSavedV2(Data, frozen=True):
    """The same page, in plain values."""

    customer_id: str
    newsletter: bool
    language: Literal["en", "de", "fr"] | UnsetType = UNSET


in_plain_values = upcaster(
    "PreferencesSaved",
    1,
    ops.map_values("newsletter", {"Y": True, "N": False}),
    ops.map_values("lang", {"english": "en", "deutsch": "de", "français": "fr"}),
    ops.rename("lang", "language"),
    why="Yes and no are true and false; languages have codes.",
)


@schema("NewsletterOrdered")
class NewsletterOrdered(Data, frozen=True):
    """The customer wants the newsletter."""

    customer_id: str


@schema("NewsletterCancelled")
class NewsletterCancelled(Data, frozen=True):
    """The customer does not want the newsletter (any more)."""

    customer_id: str


@schema("LanguageChosen")
class LanguageChosen(Data, frozen=True):
    """The language of letters and mails."""

    customer_id: str
    language: Literal["en", "de", "fr"]


@split_upcaster(
    "PreferencesSaved",
    2,
    into=[("NewsletterOrdered", 1), ("NewsletterCancelled", 1), ("LanguageChosen", 1)],
)
def one_fact_each(saved: dict[str, Any]) -> list[tuple[str, Any]]:
    """A saved page is not a fact; the newsletter is one, and the language another."""
    who = {"customer_id": saved["customer_id"]}
    facts: list[tuple[str, Any]] = [
        ("NewsletterOrdered" if saved["newsletter"] else "NewsletterCancelled", who)
    ]
    if "language" in saved:
        facts.append(("LanguageChosen", {**who, "language": saved["language"]}))
    return facts


# --- their streams --------------------------------------------------------------------------

one_stream_per_customer = merge_streams(
    "one stream per customer",
    "customer-{id}",
    "customerprefs-{id}",
    to="customer-{id}",
    why="What a customer prefers belongs to the customer.",
)


steps = [in_plain_values, one_fact_each, one_stream_per_customer]

schemas = [
    PreferencesSavedV1,
    PreferencesSavedV2,
    NewsletterOrdered,
    NewsletterCancelled,
    LanguageChosen,
]
