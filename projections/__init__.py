"""The shop's read models and aggregates: what `eventmig rebuild` can make anew.

One module each. A read model fills SQL tables from events of many streams; an
aggregate folds one stream into a state, which is kept as its snapshot.
"""

from __future__ import annotations

from projections.basket import basket
from projections.customer_list import customer_list
from projections.order import order
from projections.order_overview import order_overview
from projections.sales_per_day import sales_per_day

projections = [customer_list, order_overview, sales_per_day, basket, order]
