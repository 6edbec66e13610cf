"""Money without rounding: an integer of minor units and a currency."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal

from shoal_sdk.currencies import DECIMALS

INT64_MAX = 2**63 - 1

_DIGITS_MAX = 40
_PLAIN = re.compile(r"([+-]?)([0-9]+)(?:\.([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Money:
    """`amount_minor` minor units (cents, pence) of `currency`; below zero is allowed here.

    Money(1250, "EUR") is 12.50 euros; see `of` for major units. Wrong arguments raise ValueError.
    """

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        check_currency(self.currency)
        check_minor("amount_minor", self.amount_minor)

    @classmethod
    def of(cls, amount: str | int | Decimal, currency: str) -> Money:
        """Return money from major units: Money.of("12.50", "EUR") holds 1250.

        Raises ValueError for a float, for text that is not a plain number, and for more decimals
        than the currency has.
        """
        decimals = check_currency(currency)
        sign, whole, fraction = _split(amount)
        fraction = fraction.rstrip("0")
        if len(fraction) > decimals:
            raise ValueError(f"amount={amount!r}: {currency} has {decimals} decimals; round it to them")
        minor = int(whole + fraction.ljust(decimals, "0"))
        return cls(-minor if sign == "-" else minor, currency)


def check_currency(currency: object, field: str = "currency") -> int:
    """Return the currency's number of decimals; a ValueError naming `field` if ISO 4217 has no such code."""
    decimals = DECIMALS.get(currency) if isinstance(currency, str) else None
    if decimals is None:
        raise ValueError(f"{field}={currency!r}: not an ISO 4217 code; pass three capitals such as 'EUR'")
    return decimals


def check_minor(field: str, minor: object) -> None:
    """Raise a ValueError naming `field` unless `minor` is an int that 64 bits hold."""
    if type(minor) is not int:
        raise ValueError(
            f"{field}={minor!r}: minor units are an int, got {type(minor).__name__};"
            " Money.of('12.50', 'EUR') takes major units as text"
        )
    if not -INT64_MAX <= minor <= INT64_MAX:
        raise ValueError(f"{field}={minor!r}: more than 64 bits hold; pass minor units of one order")


def _split(amount: object) -> tuple[str, str, str]:
    """Return sign, whole and fractional digits of a plain decimal number."""
    if isinstance(amount, float):
        raise ValueError(f"amount={amount!r}: a float cannot hold money exactly; pass the text '{amount}'")
    text = ""
    if isinstance(amount, Decimal) and amount.is_finite() and -_DIGITS_MAX < amount.adjusted() < _DIGITS_MAX:
        text = format(amount, "f")
    elif isinstance(amount, str) or type(amount) is int:
        text = str(amount)
    found = _PLAIN.fullmatch(text) if len(text) <= _DIGITS_MAX else None
    if found is None:
        raise ValueError(f"amount={amount!r}: not a plain number; pass text such as '12.50'")
    return found[1], found[2], found[3] or ""
