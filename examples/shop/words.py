"""Names, places and goods that the shop's history is made of."""

from __future__ import annotations

from typing import NamedTuple

NAMES = (
    "Ada Lovelace",
    "Grace Hopper",
    "José García Márquez",
    "Zoë Ångström",
    "Łukasz Żółć",
    "Нина Петрова",
    "李 小龍",
    "山田 花子",
    "محمد علي",
    "Siobhán O'Brien",
    "Björk",
    "Nguyễn Thị Minh Khai",
    'Ole "Brumm" Hansen',
    "Jürgen Müller-Lüdenscheidt",
    "Prince",
    "Ἀριστοτέλης Σταγειρίτης",
    "Ngozi Okonjo",
    "Þórdís Kolbrún",
)

STREETS = ("Park Row", "Straße des 17. Juni", "Rue de la Paix", "Łódzka", "High Street", "東通り")

PLACES = (
    ("LS1 5HD", "Leeds"),
    ("EH1 1YZ", "Edinburgh"),
    ("CF10 1EP", "Caerdydd"),
    ("BT1 5GS", "Belfast"),
    ("PL1 1EA", "Plymouth"),
)

ABROAD = (
    ("10785", "Berlin", "DE"),
    ("75002", "Paris", "FR"),
    ("90-001", "Łódź", "PL"),
    ("100-0001", "東京", "JP"),
)


class Good(NamedTuple):
    """Something the shop sells; the price is in pence."""

    sku: str
    title: str
    price: int


GOODS = (
    Good("T-001", "Earl Grey, 250 g", 795),
    Good("T-002", "煎茶 Sencha, 100 g", 1250),
    Good("T-003", "Rooibos «Café Crème»", 620),
    Good("K-101", "Kettle, 1.7 l", 3740),
    Good("K-102", "Teapot “Brown Betty”", 2699),
    Good("K-103", "Cup & saucer ☕", 899),
    Good("B-201", "The Book of Tea", 1199),
    Good("B-202", "Ulysses", 5),
    Good("X-301", "Gift card", 100000),
    Good("X-302", "Spoon\twith\ttabs", 349),
)

PRESENTS = ("G-901", "G-902")

CARRIERS = ("DHL", "Royal Mail", "DPD")

PAGES = ("/", "/tea", "/tea/green", "/kettles", "/sale?page=2", "/basket")

NOTES = (
    "Please ring twice.",
    "Leave it with the neighbour,\tMrs Ångström",
    "Не звонить",
    "🎁 no invoice in the parcel!",
)

COUPONS = ("SPRING10", "TEA4TWO", "WELCOME")
