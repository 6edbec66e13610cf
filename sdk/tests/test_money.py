"""Money is exact or refused."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_sdk import Money
from shoal_sdk.currencies import DECIMALS


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.50", "EUR", 1250),
        ("12.5", "EUR", 1250),
        ("12", "EUR", 1200),
        (12, "EUR", 1200),
        (Decimal("12.500"), "EUR", 1250),
        (Decimal("1E+2"), "EUR", 10_000),
        ("-0.01", "USD", -1),
        ("500", "JPY", 500),
        ("1.234", "KWD", 1234),
    ],
)
def test_major_units_become_minor_units(amount: Any, currency: str, minor: int) -> None:
    """Text, ints and Decimals are scaled by the currency's decimals."""
    assert Money.of(amount, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    ("amount", "currency", "says"),
    [
        (12.5, "EUR", r"amount=12\.5: a float cannot hold money exactly; pass the text '12\.5'"),
        ("12.505", "EUR", r"amount='12\.505': EUR has 2 decimals"),
        ("0.5", "JPY", "JPY has 0 decimals"),
        ("1,250.00", "EUR", "amount='1,250.00': not a plain number"),
        ("", "EUR", "amount='': not a plain number"),
        ("1e3", "EUR", "not a plain number"),
        ("\u0661", "EUR", "not a plain number"),
        (True, "EUR", "amount=True"),
        (None, "EUR", "amount=None"),
        (Decimal("NaN"), "EUR", "not a plain number"),
        (Decimal("1E+999999"), "EUR", "not a plain number"),
        ("1" * 30, "EUR", "more than 64 bits"),
        ("1", "EURO", r"currency='EURO': not an ISO 4217 code; pass three capitals such as 'EUR'"),
        ("1", "eur", "currency='eur'"),
        ("1", None, "currency=None"),
    ],
)
def test_what_is_not_money_is_refused(amount: Any, currency: Any, says: str) -> None:
    """The error names the field, its value and the way out."""
    with pytest.raises(ValueError, match=says):
        Money.of(amount, currency)


@pytest.mark.parametrize("minor", [12.0, "12", True, None, 2**63])
def test_minor_units_are_an_int_of_64_bits(minor: Any) -> None:
    """Nothing else is taken for minor units."""
    with pytest.raises(ValueError, match="amount_minor="):
        Money(minor, "EUR")


@given(st.integers(-(2**62), 2**62), st.sampled_from(sorted(DECIMALS)))
def test_no_amount_is_rounded(minor: int, currency: str) -> None:
    """Minor units written out as a decimal number come back unchanged."""
    assert Money.of(Decimal(minor).scaleb(-DECIMALS[currency]), currency).amount_minor == minor
