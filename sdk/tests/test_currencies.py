"""The table of currencies, which has a twin where amounts are converted."""

from __future__ import annotations

from shoal_sdk.currencies import DECIMALS
from streams.segments.currencies import EXPONENTS


def test_the_client_takes_the_currencies_shoal_reads() -> None:
    """No other, and with the same decimals: an amount one side takes would be a dead letter on the other."""
    assert dict(EXPONENTS) == DECIMALS


def test_some_currencies_have_the_decimals_of_iso_4217() -> None:
    """One of each kind, and their number, so that a line lost from both tables is noticed."""
    assert [DECIMALS[code] for code in ("JPY", "EUR", "KWD", "CLF")] == [0, 2, 3, 4]
    assert len(DECIMALS) == 167
