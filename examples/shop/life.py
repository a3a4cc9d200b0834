"""One customer's years with the shop, told by a random generator of their own.

Pure: the same seed and number tell the same story. Events come in time order, each
without its positions; `history` weaves the stories together.
"""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Sequence
from random import Random
from typing import Final

import msgspec

from eventmig import Event
from examples.shop import records, words
from examples.shop.records import Data, Line, Person, version_on

BEGIN: Final = 1_614_556_800_000_000
"""2021-03-01T00:00:00Z, in microseconds since 1970."""
SECOND: Final = 1_000_000
HOUR: Final = 3600 * SECOND
DAY: Final = 24 * HOUR

_TRACED_FROM: Final = 60  # the day from which events have metadata
_encode: Final = msgspec.json.Encoder().encode


class Life:
    """A customer: where they are in time, and what caused what."""

    def __init__(self, number: int, *, seed: int, born: int) -> None:
        self.random = Random(f"{seed}/{number}")
        self.number = number
        self.now = born
        self.channel = self.random.choice(("web", "web", "app", "shop"))
        self.correlation = self._uuid()
        self.causation: str | None = None
        self.visits = 0
        self.person = self._person()

    def story(self) -> Iterator[Event]:
        """Everything that ever happens, from the registration on; a guest only looks."""
        random = self.random
        if random.random() < 0.12:
            yield from self._shop(guest=True)
            return
        yield self._say(
            f"customer-{self.person.customer_id}",
            "CustomerRegistered",
            records.customer_registered(self._version("CustomerRegistered"), self.person),
        )
        for _ in range(random.choice((1, 1, 2, 2, 3, 5))):
            if random.random() < 0.35:
                yield from self._talk()
            self._wait(HOUR, 60 * DAY)
            yield from self._shop()
        if random.random() < 0.06:
            self._wait(DAY, 30 * DAY)
            yield self._say(
                f"customer-{self.person.customer_id}",
                "CustomerDeleted",
                {"customer_id": self.person.customer_id, "reason": random.choice((1, 2, 3))},
            )

    # --- what customers do

    def _talk(self) -> Iterator[Event]:
        """Preferences are saved, a form is filled in, somebody moves."""
        random, customer_id = self.random, self.person.customer_id
        self._begin()
        self._wait(60 * SECOND, 10 * DAY)
        what = random.random()
        if what < 0.5:
            yield self._say(
                f"customerprefs-{customer_id}",
                "PreferencesSaved",
                records.preferences_saved(
                    self._version("PreferencesSaved"),
                    customer_id,
                    newsletter=random.random() < 0.6,
                    language=random.choice((None, "en", "de", "fr")),
                ),
            )
        elif what < 0.7:
            self.person = self._person(of=self.person)
            data: Data = {"customer_id": customer_id, **records.address(self.person)}
            yield self._say(f"customer-{customer_id}", "CustomerMoved", data)
        else:
            data = {"customer_id": customer_id}
            if random.random() < 0.5:
                postcode, city = random.choice(words.PLACES)
                data["address"] = {"street": self._street(), "zip": postcode, "city": city}
            if random.random() < 0.5:
                data["phone"] = self._phone()
            if random.random() < 0.2:
                data["email"] = f"new.{self.person.email}"
            yield self._say(f"customer-{customer_id}", "CustomerDetailsChanged", data)

    def _shop(self, *, guest: bool = False) -> Iterator[Event]:
        """A cart is opened, filled, changed, and sometimes checked out."""
        random = self.random
        self._begin()
        self.visits += 1
        cart_id = self._number("b")
        stream = f"cart-{cart_id}"
        data: Data = {"cart_id": cart_id}
        if not guest:
            data["customer_id"] = self.person.customer_id
        if random.random() < 0.15:
            data["coupon"] = random.choice(words.COUPONS)
        yield self._say(stream, "CartOpened", data)
        lines: dict[str, Line] = {}
        for _ in range(random.randint(1, 5)):
            for _ in range(random.randint(0, 2)):
                self._wait(2 * SECOND, 90 * SECOND)
                page = random.choice(words.PAGES)
                yield self._say(stream, "CartTouched", {"cart_id": cart_id, "page": page})
            self._wait(5 * SECOND, 200 * SECOND)
            yield from self._change(stream, cart_id, lines)
        if guest or not lines or random.random() < 0.2:
            return
        yield from self._check_out(stream, cart_id, list(lines.values()))

    def _change(self, stream: str, cart_id: str, lines: dict[str, Line]) -> Iterator[Event]:
        random = self.random
        what = random.random()
        if not lines or what < 0.75:
            line = Line(random.choice(words.GOODS), random.choice((1, 1, 1, 2, 3, 12)))
            data = records.item_added(self._version("ItemAdded"), cart_id, line)
            yield self._say(stream, "ItemAdded", data)
            before = lines.get(line.good.sku)
            lines[line.good.sku] = Line(
                line.good, line.quantity + (before.quantity if before else 0)
            )
            return
        sku = random.choice(list(lines))
        if what < 0.9:
            by = random.choice((1, 1, 2, -1))
            data = {"cart_id": cart_id, "sku": sku, "change": f"{by:+d}"}
            yield self._say(stream, "QuantityChanged", data)
            left = lines[sku].quantity + by
            if left > 0:
                lines[sku] = Line(lines[sku].good, left)
            else:
                del lines[sku]
        else:
            yield self._say(stream, "ItemRemoved", {"cart_id": cart_id, "sku": sku})
            del lines[sku]

    def _check_out(self, stream: str, cart_id: str, lines: Sequence[Line]) -> Iterator[Event]:
        random = self.random
        self._wait(10 * SECOND, 400 * SECOND)
        order_id = self._number("o")
        data: Data = {"cart_id": cart_id, "order_id": order_id}
        if random.random() < 0.05:
            data["coupon"] = random.choice(words.COUPONS)
        gift = {"cart_id": cart_id, "sku": random.choice(words.PRESENTS)}
        gift_comes = random.random()
        if gift_comes < 0.05:
            yield self._say(stream, "GiftAdded", gift)
        yield self._say(stream, "CartCheckedOut", data)
        total = sum(line.good.price * line.quantity for line in lines)
        total += random.choice((0, 395, 395, 990))
        express = None if self._day < 100 else random.random() < 0.2
        self._wait(SECOND, 3 * SECOND)
        yield self._say(
            f"order-{order_id}",
            "OrderPlaced",
            records.order_placed(
                self._version("OrderPlaced"),
                order_id,
                cart_id,
                self.person,
                lines,
                total=total,
                express=express,
                channel=self.channel,
            ),
        )
        if gift_comes > 0.9:  # the nightly job
            self._wait(HOUR, 8 * HOUR)
            yield self._say(stream, "GiftAdded", gift)
        yield from self._fulfil(order_id, total)

    # --- what the shop does

    def _fulfil(self, order_id: str, total: int) -> Iterator[Event]:
        """An order is paid, sent and delivered, or it comes to nothing."""
        random, stream = self.random, f"order-{order_id}"
        if random.random() < 0.1:
            self._wait(30 * SECOND, HOUR)
            note: Data = {"order_id": order_id, "line1": random.choice(words.NOTES)}
            if random.random() < 0.5:
                note["line2"] = random.choice(words.NOTES)
            yield self._say(stream, "OrderNoted", note)
        payment_id = self._number("p")
        captured = yield from self._pay(payment_id, order_id, total)
        if not captured or random.random() < 0.04:
            self._wait(HOUR, 2 * DAY)
            reason = 2 if captured else 3
            by = "customer" if captured else "shop"
            data: Data = {"order_id": order_id, "reason": reason, "by": by}
            yield self._say(stream, "OrderCancelled", data)
        else:
            yield from self._send(stream, order_id)
            if random.random() > 0.05:
                return
            self._wait(DAY, 14 * DAY)
            data = {"order_id": order_id, "reason": 1, "by": "customer"}
            yield self._say(stream, "OrderCancelled", data)
        if captured:
            self._wait(HOUR, 3 * DAY)
            yield self._say(
                f"payment-{payment_id}",
                "PaymentRefunded",
                {
                    "payment_id": payment_id,
                    "order_id": order_id,
                    "amount": records.text(total),
                },
            )

    def _pay(self, payment_id: str, order_id: str, total: int) -> Generator[Event, None, bool]:
        """Whether it was captured. Now and then the bank is asked twice."""
        random, stream = self.random, f"payment-{payment_id}"
        method = random.choice(("card", "card", "paypal", "invoice"))
        for _ in range(2 if random.random() < 0.03 else 1):
            self._wait(2 * SECOND, 600 * SECOND)
            yield self._say(
                stream,
                "PaymentAuthorised",
                records.payment_authorised(
                    self._version("PaymentAuthorised"),
                    payment_id,
                    order_id,
                    cents=total,
                    method=method,
                    holder=self.person.name if method == "card" else None,
                ),
            )
        if random.random() < 0.04:
            return False
        self._wait(SECOND, 4 * HOUR)
        yield self._say(
            stream,
            "PaymentCaptured",
            {
                "payment_id": payment_id,
                "order_id": order_id,
                "amount": records.text(total),
                "captured": self.now // SECOND,
            },
        )
        return True

    def _send(self, stream: str, order_id: str) -> Iterator[Event]:
        """In one parcel or two; a few are fetched from the shop."""
        random = self.random
        parcels = ("1", "2") if random.random() < 0.12 else ("1",)
        carrier = None if random.random() < 0.05 else random.choice(words.CARRIERS)
        for parcel in parcels:
            self._wait(2 * HOUR, 30 * HOUR)
            yield self._say(
                stream,
                "ParcelSent",
                records.parcel_sent(
                    self._version("ParcelSent"),
                    order_id,
                    f"s{order_id[1:]}{parcel}",
                    carrier=carrier,
                    tracking=f"{random.randrange(10**10):010d}",
                ),
            )
        for parcel in parcels:
            self._wait(6 * HOUR, 50 * HOUR)
            data: Data = {
                "order_id": order_id,
                "shipment_id": f"s{order_id[1:]}{parcel}",
                "delivered": self.now // SECOND,
            }
            if random.random() < 0.3:
                data["signed_by"] = self.person.name
            yield self._say(stream, "ShipmentDelivered", data)

    # --- below

    @property
    def _day(self) -> int:
        return (self.now - BEGIN) // DAY

    def _version(self, type_: str) -> int:
        return version_on(self._day, type_)

    def _wait(self, least: int, most: int) -> None:
        self.now += self.random.randrange(least, most)

    def _begin(self) -> None:
        """Another visit: what follows belongs together."""
        self.correlation = self._uuid()
        self.causation = None

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _number(self, kind: str) -> str:
        return f"{kind}{self.number}{self.visits:02d}"

    def _say(self, stream: str, type_: str, data: Data) -> Event:
        self.now += 1  # no two events of one story at the same time
        id_ = self._uuid()
        event = Event(
            0,
            stream,
            0,
            id_,
            type_,
            self._version(type_),
            _encode(data),
            self._metadata() if self._day >= _TRACED_FROM else None,
            self.now,
        )
        self.causation = id_
        return event

    def _metadata(self) -> bytes:
        metadata: Data = {"correlation_id": self.correlation}
        if self.causation is not None:
            metadata["causation_id"] = self.causation
        return _encode(metadata | {"channel": self.channel, "tenant": "north"})

    def _street(self) -> str:
        return f"{self.random.choice(words.STREETS)} {self.random.randint(1, 220)}"

    def _phone(self) -> str:
        return f"+44 {self.random.randrange(10**9):09d}"

    def _person(self, of: Person | None = None) -> Person:
        """A new person, or the same one at a new address."""
        random = self.random
        country: str | None
        if random.random() < 0.2:
            postcode, city, country = random.choice(words.ABROAD)
        else:
            postcode, city = random.choice(words.PLACES)
            country = "GB" if random.random() < 0.5 else None
        if of is not None:
            return of._replace(street=self._street(), postcode=postcode, city=city, country=country)
        has_phone_field = random.random() < 0.9
        return Person(
            customer_id=f"c{self.number}",
            name=random.choice(words.NAMES),
            email=f"customer.{self.number}@example.org",
            phone=self._phone() if random.random() < 0.7 else None,
            has_phone_field=has_phone_field,
            street=self._street(),
            postcode=postcode,
            city=city,
            country=country,
        )
