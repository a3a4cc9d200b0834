"""Stores in tables that other libraries own: a description says how they hold events."""

from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.fence import open_layout
from eventmig.stores.layouts.place import OPTION, Place, address_of
from eventmig.stores.layouts.presets import presets
from eventmig.stores.layouts.propose import propose, toml
from eventmig.stores.layouts.recognise import Match, matches, seen_in
from eventmig.stores.layouts.store import LayoutStore, database_of

__all__ = [
    "OPTION",
    "Layout",
    "LayoutStore",
    "Match",
    "Place",
    "address_of",
    "database_of",
    "matches",
    "open_layout",
    "presets",
    "propose",
    "seen_in",
    "toml",
]
