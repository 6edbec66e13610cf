"""Currencies and their conversion to minor units of the reporting currency, exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from streams.customers.facts import Int64s

AMOUNT_LIMIT_MINOR = 1 << 45
"""The largest converted amount. 65,000 of them still sum up below what the evaluation assumes (2**61)."""

_PRODUCT_LIMIT = 1 << 62
"""Numerator times denominator of a scaled rate stay below this, so that int64 cannot overflow."""

# ISO 4217, by how many digits the minor unit has. The SDK has the same table, equal by a test of its.
_CODES = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    2: (
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD "
        "CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS "
        "GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL "
        "MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK "
        "PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS "
        "TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG"
    ),
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}

EXPONENTS: Mapping[str, int] = {code: digits for digits, codes in _CODES.items() for code in codes.split()}
"""ISO 4217 code to how many digits its minor unit has."""


@dataclass(frozen=True)
class Rates:
    """What one unit of each declared currency is worth in the reporting currency."""

    reporting_currency: str
    declared: Mapping[str, Fraction]
    """Units of the reporting currency for one unit; the reporting currency itself is always 1."""
    _scaled: Mapping[str, Fraction] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        to = EXPONENTS[self.reporting_currency]
        scaled = {
            currency: rate * Fraction(10) ** (to - EXPONENTS[currency])
            for currency, rate in {**self.declared, self.reporting_currency: Fraction(1)}.items()
        }
        for currency, rate in scaled.items():
            if rate <= 0 or not fits(rate):
                raise ValueError(f"rate of {currency}={rate}: expected above 0 with at most 9 digits")
        object.__setattr__(self, "_scaled", scaled)

    def __contains__(self, currency: object) -> bool:
        return currency in self._scaled

    def limit_minor(self, currency: str) -> int:
        """Return the largest amount, in the currency's own minor units, that convert() accepts."""
        return min(int(AMOUNT_LIMIT_MINOR / self._scaled[currency]), (1 << 53) - 1)

    def convert(self, amount_minor: Int64s, currency: str) -> Int64s:
        """Return int64[n] minor units of the reporting currency, half a unit rounded to even.

        Exact at any size. KeyError for a currency without a rate; ValueError for an amount
        below 0 or above limit_minor(currency).
        """
        rate = self._scaled[currency]
        if len(amount_minor) and not 0 <= amount_minor.min() <= amount_minor.max() <= self.limit_minor(
            currency
        ):
            raise ValueError(f"amount_minor in {currency}: expected 0..{self.limit_minor(currency)}")
        if rate == 1:
            return amount_minor.astype(np.int64)
        # amount = whole * denominator + part, so the large share is multiplied without remainder
        # and the small one stays below numerator * denominator.
        whole, part = np.divmod(amount_minor.astype(np.int64), rate.denominator)
        quotient, rest = np.divmod(part * rate.numerator, rate.denominator)
        converted = whole * rate.numerator + quotient
        # `rest > denominator - rest` is `2 * rest > denominator` without the chance of an overflow.
        above, half = rest > rate.denominator - rest, rest == rate.denominator - rest
        exact: Int64s = converted + (above | (half & (converted & 1).astype(np.bool_)))
        return exact


def fits(scaled_rate: Fraction) -> bool:
    """Return whether a rate between minor units is short enough to convert in int64."""
    return scaled_rate.numerator * scaled_rate.denominator < _PRODUCT_LIMIT
