"""segments.yaml to a Definition, or every problem in it at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

from streams.segments import declared
from streams.segments.currencies import EXPONENTS, Rates, fits
from streams.segments.definition import Definition, Lifecycle
from streams.segments.document import BEGINNING, Entry, Problems, parse
from streams.segments.grid import PROSPECT, SCORES, SUMS, Grid, prove
from streams.segments.stages import VALUES

DEFAULT_PATH = Path(__file__).parents[2] / "segments.yaml"

_EDGES = ("5", "4", "3", "2")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_SUMS = re.compile(r"([0-9]{1,2})(?:-([0-9]{1,2}))?")
_CELLS = re.compile(r"R([0-9])(?:-([0-9]))? +FM([0-9])(?:-([0-9]))?")
_COUNT_LIMIT = 1_000_000
_SPEND_LIMIT_MINOR = 1 << 45
_NAMES_LIMIT = 25

Edges = tuple[int, int, int, int]


def load(text: str, source_name: str) -> Definition:
    """Return the definition a YAML text declares.

    Raises DefinitionError with all problems, each `source:LINE:COLUMN: name: expected ..., got ...`.
    """
    problems = Problems(source_name)
    root = parse(text, problems).fields(("money", "rfm", "lifecycle"), ("version", *declared.SECTIONS))
    # Applying gives the number: what the file says is only that of a pipeline's very first.
    version = root["version"].whole(1, 2**31 - 1) if "version" in root else 1
    rates = _rates(root["money"]) if "money" in root else None
    exponent = 2 if rates is None else EXPONENTS[rates.reporting_currency]
    rfm = _Rfm(root["rfm"], exponent) if "rfm" in root else None
    lifecycle = _lifecycle(root["lifecycle"]) if "lifecycle" in root else None
    names = rfm.grid.names if rfm is not None and rfm.grid is not None else ()
    custom = declared.read(root, exponent, (PROSPECT, *names) if names else (), VALUES)
    problems.raise_any()
    # Every part is there when no problem was noted; this says so to the reader and the type checker.
    assert version is not None and rates is not None and rfm is not None and lifecycle is not None
    assert rfm.window_ms is not None and rfm.recency is not None and rfm.orders is not None
    assert rfm.spend is not None and rfm.grid is not None
    core = (version, rates, rfm.window_ms, rfm.recency, rfm.orders, rfm.spend, rfm.grid, lifecycle)
    return Definition(*core, traits=custom.traits, segments=custom.segments, dimensions=custom.dimensions)


def load_path(path: Path) -> Definition:
    """Return the definition a file declares; OSError when it cannot be read, DefinitionError as load()."""
    problems = Problems(path.name)
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        problems.add(BEGINNING, "file", f"expected UTF-8 text, got byte {error.start} that is not")
        problems.raise_any()
        raise
    return load(text, path.name)


def default_definition() -> Definition:
    """Return the definition in the repository's own segments.yaml."""
    return load_path(DEFAULT_PATH)


def _currency(entry: Entry, code: str) -> bool:
    if code in EXPONENTS:
        return True
    entry.problem(f"an ISO 4217 currency code (did you mean {_nearest(code)}?)", code)
    return False


def _nearest(code: str) -> str:
    # Three letters are too few for a general measure of likeness: count those in place and those shared.
    def likeness(known: str) -> int:
        return sum(map(str.__eq__, known, code.upper())) + len(set(known) & set(code.upper()))

    return max(EXPONENTS, key=likeness)


def _rates(entry: Entry) -> Rates | None:
    fields = entry.fields(("reporting_currency", "rates"))
    reporting = None
    if "reporting_currency" in fields:
        found = fields["reporting_currency"].match(_CURRENCY, "an ISO 4217 currency code such as EUR")
        if found is not None and _currency(fields["reporting_currency"], found[0]):
            reporting = found[0]
    declared: dict[str, Fraction] = {}
    if "rates" in fields:
        for code, rate_entry in (fields["rates"].mapping("currencies and their rates") or {}).items():
            expected = "a decimal above 0 with at most 9 digits, such as 0.86"
            rate = rate_entry.decimal(expected)
            if not _currency(rate_entry, code) or rate is None:
                continue
            shift = 0 if reporting is None else EXPONENTS[reporting] - EXPONENTS[code]
            if not fits(rate * Fraction(10) ** shift):
                rate_entry.problem(expected)
            elif code == reporting and rate != 1:
                rate_entry.problem("1, for it is the reporting currency itself")
            elif code != reporting:
                declared[code] = rate
    return None if reporting is None else Rates(reporting, declared)


class _Rfm:
    """The fields of the rfm section, None where a problem was noted."""

    def __init__(self, entry: Entry, exponent: int) -> None:
        fields = entry.fields(("window", "recency_under", "orders_at_least", "spend_at_least", "fm", "grid"))
        self.window_ms = fields["window"].days_ms() if "window" in fields else None
        self.recency = _edges(fields.get("recency_under"), lambda edge: edge.days_ms(), rising_scores=False)
        self.orders = _edges(fields.get("orders_at_least"), lambda edge: edge.whole(1, _COUNT_LIMIT))
        self.spend = _edges(fields.get("spend_at_least"), lambda edge: _minor(edge, exponent))
        self.grid = _grid(fields["fm"], fields["grid"]) if fields.keys() >= {"fm", "grid"} else None


def _minor(entry: Entry, exponent: int) -> int | None:
    expected = f"an amount above 0 with at most {exponent} decimals"
    amount = entry.decimal(expected)
    if amount is None:
        return None
    minor = amount * 10**exponent
    if minor.denominator == 1 and minor < _SPEND_LIMIT_MINOR:
        return int(minor)
    entry.problem(expected)
    return None


def _edges(
    entry: Entry | None, read: Callable[[Entry], int | None], *, rising_scores: bool = True
) -> Edges | None:
    if entry is None:
        return None
    fields = entry.fields(_EDGES)
    found = [read(fields[score]) if score in fields else None for score in _EDGES]
    values = [value for value in found if value is not None]
    if len(values) < len(_EDGES):
        return None
    ascending = values[::-1] if rising_scores else values
    if ascending != sorted(set(ascending)):
        shape = "falling" if rising_scores else "rising"
        entry.problem(f"thresholds strictly {shape} from score 5 to 2", "others")
        return None
    first, second, third, fourth = ascending
    return first, second, third, fourth


def _grid(fm: Entry, grid: Entry) -> Grid | None:
    columns: list[tuple[int, tuple[int, ...]]] = []
    sound = True
    for column, entry in fm.fields([str(score) for score in SCORES]).items():
        sums: list[int] = []
        expected = f"sums of F and M within {SUMS[0]}..{SUMS[-1]}, such as 4-5 or [4, 5]"
        for item in entry.items(expected) or []:
            found = item.match(_SUMS, expected)
            span = _span(found[1], found[2]) if found else range(0)
            if found and not (span and span[0] in SUMS and span[-1] in SUMS):
                item.problem(expected)
            sums.extend(span)
        columns.append((int(column), tuple(sums)))
    claims: list[tuple[str, tuple[tuple[int, int], ...]]] = []
    named = grid.mapping("names and the cells they claim") or {}
    if len(named) > _NAMES_LIMIT:
        grid.problem(f"at most {_NAMES_LIMIT} names", str(len(named)))
    for name, entry in named.items():
        if not _NAME.fullmatch(name) or name == PROSPECT:
            entry.problem(
                f"a name of lower-case letters, digits and _, other than {PROSPECT}", "another name"
            )
        cells = _cells(entry)
        sound = sound and cells is not None
        claims.append((name, cells or ()))
    # Unreadable claims leave cells out of their own accord: naming those too would bury the cause.
    if not sound or len(columns) < len(SCORES):
        return None
    flaws = prove(claims, columns)
    for flaw in flaws:
        part, _, sentence = flaw.partition(": ")
        grid.note(part, sentence)
    return None if flaws else Grid(tuple(claims), tuple(columns))


def _cells(entry: Entry) -> tuple[tuple[int, int], ...] | None:
    expected = "cells within R1..5 and FM1..5, such as R5 FM4-5"
    cells: list[tuple[int, int]] = []
    items = entry.items(expected)
    for item in items or []:
        found = item.match(_CELLS, expected)
        if found is None:
            return None
        rows, columns = _span(found[1], found[2]), _span(found[3], found[4])
        inside = rows and columns and all(score in SCORES for span in (rows, columns) for score in span)
        if not inside:
            item.problem(expected)
            return None
        cells.extend((row, column) for row in rows for column in columns)
    if items == []:
        entry.problem(expected)
    return tuple(cells) if items else None


def _span(first: str, last: str | None) -> range:
    return range(int(first), int(last or first) + 1)


def _lifecycle(entry: Entry) -> Lifecycle | None:
    fields = entry.fields(("at_risk_after", "churned_after", "recent_for", "loyal"))
    at_risk, churned, recent = (
        fields[name].days_ms() if name in fields else None
        for name in ("at_risk_after", "churned_after", "recent_for")
    )
    loyal = fields["loyal"].fields(("tenure", "recency", "frequency")) if "loyal" in fields else {}
    tenure = loyal["tenure"].days_ms() if "tenure" in loyal else None
    recency, frequency = (
        loyal[name].whole(1, 5) if name in loyal else None for name in ("recency", "frequency")
    )
    if churned is not None:
        for name, duration_ms in (("at_risk_after", at_risk), ("recent_for", recent)):
            if duration_ms is not None and duration_ms >= churned:
                fields[name].problem("less than churned_after")
    if None in (at_risk, churned, recent, tenure, recency, frequency):
        return None
    assert at_risk and churned and recent and tenure and recency and frequency
    return Lifecycle(at_risk, churned, recent, tenure, recency, frequency)
