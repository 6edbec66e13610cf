"""Conversion to the reporting currency against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.segments.currencies import AMOUNT_LIMIT_MINOR, EXPONENTS, Rates

CODES = ("GBP", "EUR", "JPY", "KWD", "CLF")


@pytest.mark.parametrize(("code", "digits"), [("GBP", 2), ("JPY", 0), ("KWD", 3), ("CLF", 4), ("ISK", 0)])
def test_exponents_are_those_of_iso_4217(code: str, digits: int) -> None:
    """The minor unit has as many digits as the standard says."""
    assert EXPONENTS[code] == digits


@given(
    st.sampled_from(CODES),
    st.sampled_from(CODES),
    st.integers(1, 10**9 - 1),
    st.integers(0, 9),
    st.lists(st.floats(0, 1) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=8),
    st.lists(st.integers(0, 10_000), max_size=8),
)
def test_conversion_is_exact_and_rounds_half_to_even(
    reporting: str, currency: str, digits: int, places: int, shares: list[float], small: list[int]
) -> None:
    """Every amount up to the limit converts to what fractions say, whatever the rate."""
    rate = Fraction(digits, 10**places)
    try:
        rates = Rates(reporting, {} if currency == reporting else {currency: rate})
    except ValueError:
        return
    limit = rates.limit_minor(currency)
    amounts = [int(share * limit) for share in shares] + [amount for amount in small if amount <= limit]
    exact = (
        Fraction(1)
        if currency == reporting
        else rate * Fraction(10) ** (EXPONENTS[reporting] - EXPONENTS[currency])
    )
    converted = rates.convert(np.array(amounts, np.int64), currency)
    assert converted.tolist() == [round(amount * exact) for amount in amounts]
    assert converted.max() <= AMOUNT_LIMIT_MINOR


def test_half_a_unit_goes_to_the_even_one() -> None:
    """0.5 and 2.5 round down, 1.5 and 3.5 up."""
    rates = Rates("GBP", {"EUR": Fraction(1, 2)})
    assert rates.convert(np.array([1, 3, 5, 7]), "EUR").tolist() == [0, 2, 2, 4]


def test_reporting_currency_is_itself() -> None:
    """The reporting currency converts at 1 without being declared."""
    assert Rates("GBP", {}).convert(np.array([0, 7]), "GBP").tolist() == [0, 7]


def test_unknown_currency_is_not_contained() -> None:
    """A currency without a rate can be asked for before converting, and is a KeyError after."""
    rates = Rates("GBP", {"EUR": Fraction(1)})
    assert "EUR" in rates and "GBP" in rates and "USD" not in rates
    with pytest.raises(KeyError):
        rates.convert(np.array([1]), "USD")


@pytest.mark.parametrize("beyond", [-1, None])
def test_amounts_out_of_range_are_refused(beyond: int | None) -> None:
    """Negative amounts and those above the limit raise instead of wrapping around."""
    rates = Rates("GBP", {"JPY": Fraction(53, 10000)})
    amount = rates.limit_minor("JPY") + 1 if beyond is None else beyond
    with pytest.raises(ValueError, match="amount_minor in JPY: expected 0"):
        rates.convert(np.array([1, amount]), "JPY")


def test_a_rate_too_long_for_exact_arithmetic_is_refused() -> None:
    """A rate that could overflow never becomes Rates."""
    with pytest.raises(ValueError, match="at most 9 digits"):
        Rates("GBP", {"EUR": Fraction(1234567890123, 10**12)})
