"""Stores in tables that other libraries own: a description says how they hold events."""

from eventmig.stores.layouts.description import Layout
from eventmig.stores.layouts.place import OPTION
from eventmig.stores.layouts.presets import described, preset, presets
from eventmig.stores.layouts.store import LayoutStore, open_layout

__all__ = ["OPTION", "Layout", "LayoutStore", "described", "open_layout", "preset", "presets"]
