"""The examples of the page about ops. Text that `ops` runs, and data to run it on."""

from __future__ import annotations

from typing import TypeAlias

Example: TypeAlias = "tuple[str, object]"

EXAMPLES: dict[str, list[Example]] = {
    "add": [
        ('ops.add("country", "GB")', {"city": "London"}),
        ('ops.add("sent_to", ops.ref("email"))', {"email": "a@example.org"}),
        ('ops.add("channel", ops.from_metadata("channel", otherwise="web"))', {"order_id": "1"}),
    ],
    "default": [('ops.default("express", False)', {"order_id": "1"})],
    "put_value": [('ops.put_value("by", "shop", was="customer")', {"by": "customer"})],
    "drop": [
        ('ops.drop("fax")', {"name": "Ada", "fax": ""}),
        ('ops.drop("fax", restore="")', {"name": "Ada", "fax": "12"}),
    ],
    "rename": [('ops.rename("address.zip", "postcode")', {"address": {"zip": "N1 9GU"}})],
    "move": [('ops.move("card.holder", "payer")', {"card": {"holder": "Ada", "number": "42"}})],
    "nest": [
        (
            'ops.nest("street", "city", under="address")',
            {"name": "Ada", "street": "Park Row 1", "city": "London"},
        )
    ],
    "unnest": [('ops.unnest("customer", "id")', {"customer": {"id": "7", "name": "Ada"}})],
    "wrap": [('ops.wrap("phone")', {"phone": "123"})],
    "unwrap": [('ops.unwrap("carriers")', {"carriers": ["post"]})],
    "convert": [('ops.convert("total", "text_to_hundredths")', {"total": "12.50"})],
    "map_values": [
        ('ops.map_values("reason", [(1, "too_slow"), (2, "sold_out")])', {"reason": 2}),
        ('ops.map_values("paid", {"Y": True, "N": False})', {"paid": "Y"}),
    ],
    "split": [('ops.split("name", into=("given", "family"), at=" ")', {"name": "Ada Lovelace"})],
    "combine": [
        (
            r'ops.combine("line1", "line2", to="note", separator="\n")',
            {"line1": "Ring", "line2": "twice"},
        )
    ],
    "append": [('ops.append("tags", "old")', {"tags": ["new"]})],
    "remove": [('ops.remove("tags", "old")', {"tags": ["new", "old"]})],
    "add_line": [('ops.add_line("notes", "moved in 2026")', {"notes": "first"})],
    "each": [
        (
            'ops.each("lines", ops.convert("qty", "text_to_integer"), ops.rename("qty", "count"))',
            {"lines": [{"sku": "A", "qty": "2"}]},
        )
    ],
    "when": [
        (
            'ops.when(ops.equals("express", True), ops.add("delivery", "express"), '
            'otherwise=[ops.add("delivery", "standard")])',
            {"express": True},
        )
    ],
    "apply": [('ops.apply(lambda data: {**data, "stars": data["points"] // 2})', {"points": 7})],
}
"""At least one example per op, in the order of the page."""

CONDITIONS: dict[str, Example] = {
    "present": ('ops.present("phone")', {"phone": None}),
    "absent": ('ops.absent("phone")', {"phone": None}),
    "equals": ('ops.equals("paid", True)', {"paid": 1}),
    "one_of": ('ops.one_of("country", "GB", "IE")', {"country": "IE"}),
    "contains": ('ops.contains("lines", "A", key="sku")', {"lines": [{"sku": "A"}]}),
    "starts_with": ('ops.starts_with("sku", "B-")', {"sku": "A-7"}),
    "is_kind": ('ops.is_kind("card", "object")', {"card": {}}),
    "not_": ('ops.not_(ops.present("card"))', {}),
    "all_of": ('ops.all_of(ops.present("a"), ops.present("b"))', {"a": 1}),
    "any_of": ('ops.any_of(ops.present("a"), ops.present("b"))', {"a": 1}),
}
"""One example per condition."""

CONVERSIONS: dict[str, object] = {
    "text_to_integer": "7",
    "integer_to_text": 7,
    "text_to_number": "1.10",
    "number_to_text": 1.5,
    "text_to_boolean": "true",
    "boolean_to_text": True,
    "text_to_hundredths": "12.50",
    "hundredths_to_text": 1250,
    "number_to_hundredths": 12.5,
    "json_text_to_value": '{"a":1}',
    "value_to_json_text": {"a": 1},
    "time_to_epoch_seconds": "2026-01-31T12:00:00Z",
    "time_to_utc_text": "2012/03/10 22:00:00 -0800",
    "time_to_iso": "2012/03/10 22:00:00 -0800",
    "lower": "Grace",
    "capitalise": "grace",
    "strip": " Grace ",
}
"""One value per named conversion."""
