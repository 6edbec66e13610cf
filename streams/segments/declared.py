"""The optional sections of segments.yaml: traits, events, custom segments and custom dimensions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from streams.customers.series import Series
from streams.segments import tree
from streams.segments.checking import Checked, check
from streams.segments.document import Entry
from streams.segments.functions import FUNCTIONS, NAMES, TRAIT_TYPES, WORDS
from streams.segments.literals import WINDOW_MAX_MS, Vocabulary, epoch_ms
from streams.segments.rules import Case, CustomDimension, Segment
from streams.segments.syntax import DURATIONS_MS, Refused, one_line

SECTIONS = ("traits", "events", "segments", "dimensions")
COUNT_MAX = 250
"""Segments and dimensions together: a row counts them in one byte."""

_TRAITS_MAX, _CASES_MAX, _LABELS_MAX = 256, 25, 20
_KEY = re.compile(r"[a-z][a-z0-9_]{0,39}")
KEPT_BY_SINKS = frozenset({"epoch", "seq", "expires_at"})
"""Names a sink keeps beside the dimensions of a customer; held equal to its own by a test."""
_TRAIT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_STATES = ("live", "shadow", "draft")
_DETAILS = {"name": 100, "description": 1_000, "owner": 200}
_SEGMENT = (
    *("name", "description", "owner", "labels", "dwell_enter", "dwell_exit", "cooldown"),
    *("valid_from", "valid_until", "state"),
)
_PROPERTY_TYPES = ("string", "number", "boolean")


@dataclass(frozen=True, slots=True)
class Declared:
    """What the optional sections declare."""

    traits: tuple[tuple[str, str], ...]
    segments: tuple[Segment, ...]
    dimensions: tuple[CustomDimension, ...]


def read(
    root: Mapping[str, Entry], exponent: int, names: tuple[str, ...], stages: tuple[str, ...]
) -> Declared:
    """Read the sections, noting problems where they are.

    `exponent` is that of the reporting currency, `names` the values of rfm, `stages` of lifecycle.
    """
    return _Sections(root, exponent, names, stages).read()


class _Sections:
    def __init__(
        self, root: Mapping[str, Entry], exponent: int, names: tuple[str, ...], stages: tuple[str, ...]
    ) -> None:
        self._root = root
        self._traits = self._read_traits()
        self._segments = self._keyed("segments")
        self._dimensions = self._keyed("dimensions")
        self._parts = {key: entry.fields(("when",), _SEGMENT) for key, entry in self._segments.items()}
        self._check_keys()
        self._values = {
            key: self._read_values(entry.fields(("values", "otherwise"), tuple(_DETAILS)))
            for key, entry in self._dimensions.items()
        }
        custom = {key: tuple(value for value, _ in found) for key, found in self._values.items()}
        self._vocabulary = Vocabulary(
            exponent=exponent,
            traits=self._traits,
            exclusive={"rfm": names, "lifecycle": stages, **custom},
            segments=frozenset(self._segments),
            unsettled=frozenset(key for key, parts in self._parts.items() if _settles(parts)),
            events=self._read_events(),
        )
        self._reads: dict[str, frozenset[str]] = {}

    def read(self) -> Declared:
        segments = [self._segment(key, parts) for key, parts in self._parts.items()]
        dimensions = [self._dimension(key, values) for key, values in self._values.items()]
        self._refuse_cycles()
        return Declared(
            tuple(sorted(self._traits.items())),
            tuple(segment for segment in segments if segment is not None),
            tuple(dimension for dimension in dimensions if dimension is not None),
        )

    # -- what expressions may speak of -----------------------------------------------------

    def _read_traits(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if "traits" not in self._root:
            return found
        entries = self._root["traits"].mapping("traits and their types") or {}
        if len(entries) > _TRAITS_MAX:
            self._root["traits"].problem(f"at most {_TRAITS_MAX} traits", str(len(entries)))
        for name, entry in entries.items():
            kind = entry.choice(TRAIT_TYPES)
            if not _TRAIT.fullmatch(name):
                entry.problem("a name of letters, digits and _", name[:60])
            elif name in _TAKEN:
                got = f"the trait {name} and the word {name} of the language"
                entry.problem("a name the language does not use itself", got)
            elif kind is not None:
                found[name] = kind
        return found

    def _read_events(self) -> dict[str, dict[str, str]] | None:
        if "events" not in self._root:
            return None
        found: dict[str, dict[str, str]] = {}
        for name, entry in (self._root["events"].mapping("events and their properties") or {}).items():
            found[name] = {}
            for each, kind in (entry.mapping("properties and their types, or {}") or {}).items():
                declared = kind.choice(_PROPERTY_TYPES)
                if declared is not None:
                    found[name][each] = declared
        return found

    def _keyed(self, section: str) -> dict[str, Entry]:
        if section not in self._root:
            return {}
        entries = self._root[section].mapping(f"keys of {section}") or {}
        for key, entry in entries.items():
            if not _KEY.fullmatch(key) or key in ("rfm", "lifecycle"):
                entry.problem("a key of lower-case letters, digits and _, not rfm or lifecycle", key[:60])
            elif key in KEPT_BY_SINKS:
                others = ", ".join(sorted(KEPT_BY_SINKS))
                entry.problem(f"a key that sinks do not keep for themselves, as they do {others}", key)
        return entries

    def _check_keys(self) -> None:
        count = len(self._segments) + len(self._dimensions)
        count += sum(map(_settles, self._parts.values()))
        if count > COUNT_MAX:
            section = "segments" if self._segments else "dimensions"
            expected = f"at most {COUNT_MAX} segments and dimensions, one with a delay counting twice"
            self._root[section].problem(expected, str(count))
        for key, entry in self._dimensions.items():
            if key in self._segments:
                entry.problem("a key of its own", f"the segment {key} and the dimension {key}")
            if key in _TAKEN or key in self._traits:
                what = "trait" if key in self._traits else "word"
                entry.problem("a key that means nothing else", f"the dimension {key} and the {what} {key}")

    # -- rules -----------------------------------------------------------------------------

    def _rule(self, entry: Entry, owner: str) -> tuple[str, Checked] | None:
        text = entry.words("a rule", 1 << 20)
        if text is None:
            return None
        try:
            checked = check(text, self._vocabulary)
        except Refused as refused:
            entry.problem_at(refused.at, refused.problem)
            return None
        self._reads[owner] = self._reads.get(owner, frozenset()) | checked.reads
        return one_line(text), checked

    def _segment(self, key: str, parts: Mapping[str, Entry]) -> Segment | None:
        details = _details(parts)
        labels = _labels(parts.get("labels"))
        enter_ms, exit_ms, cooldown_ms = (
            _duration(parts.get(name)) for name in ("dwell_enter", "dwell_exit", "cooldown")
        )
        from_ms, until_ms = (_instant(parts.get(name)) for name in ("valid_from", "valid_until"))
        if from_ms is not None and until_ms is not None and from_ms >= until_ms:
            parts["valid_until"].problem("an instant after valid_from")
        state = parts["state"].choice(_STATES) if "state" in parts else "live"
        found = self._rule(parts["when"], key) if "when" in parts else None
        if found is None or state is None:
            return None
        when, checked = found
        rule = checked.rule
        if from_ms is not None or until_ms is not None:
            rule = tree.Every((tree.During(from_ms, until_ms), rule))
        return Segment(
            key,
            when,
            rule,
            _sorted(checked.series),
            name=details["name"],
            description=details["description"],
            owner=details["owner"],
            labels=labels,
            dwell_enter_ms=enter_ms,
            dwell_exit_ms=exit_ms,
            cooldown_ms=cooldown_ms,
            valid_from_ms=from_ms,
            valid_until_ms=until_ms,
            state="live" if state == "live" else "shadow" if state == "shadow" else "draft",
        )

    def _read_values(self, parts: Mapping[str, Entry]) -> list[tuple[str, Entry]]:
        """Return the values of a dimension, the last one being `otherwise`."""
        found = []
        if "values" in parts:
            named = parts["values"].mapping("values and their rules") or {}
            if not 1 <= len(named) <= _CASES_MAX:
                parts["values"].problem(f"1 to {_CASES_MAX} values", str(len(named)))
            found = list(named.items())
        for value, entry in found:
            if not _KEY.fullmatch(value):
                entry.problem("a value of lower-case letters, digits and _", value[:60])
        if "otherwise" in parts:
            match = parts["otherwise"].match(_KEY, "a value of lower-case letters, digits and _")
            if match is not None and match[0] in dict(found):
                parts["otherwise"].problem("a value of its own")
            elif match is not None:
                found.append((match[0], parts["otherwise"]))
        return found

    def _dimension(self, key: str, values: list[tuple[str, Entry]]) -> CustomDimension | None:
        if len(values) < 2:
            return None
        series: dict[str, Series] = {}
        cases = []
        for value, entry in values[:-1]:
            found = self._rule(entry, key)
            if found is not None:
                cases.append(Case(value, found[0], found[1].rule))
                series.update(found[1].series)
        parts = self._dimensions[key].mapping("fields") or {}
        return CustomDimension(key, tuple(cases), values[-1][0], _sorted(series), **_details(parts))

    def _refuse_cycles(self) -> None:
        entries = {**self._segments, **self._dimensions}
        done: set[str] = set()

        def visit(key: str, path: tuple[str, ...]) -> None:
            if key in path:
                cycle = " -> ".join((*path[path.index(key) :], key))
                entries[key].problem("rules that do not read each other in a circle", cycle)
                done.update(path)
            if key in done or key not in entries:
                return
            for read in sorted(self._reads.get(key, ())):
                visit(read, (*path, key))
            done.add(key)

        for key in entries:
            visit(key, ())


def _settles(parts: Mapping[str, Entry]) -> bool:
    return any(name in parts for name in ("dwell_enter", "dwell_exit", "cooldown"))


def _details(parts: Mapping[str, Entry]) -> dict[str, str]:
    given = {name: parts[name].words("a text", most) for name, most in _DETAILS.items() if name in parts}
    return {name: given.get(name) or "" for name in _DETAILS}


def _labels(entry: Entry | None) -> tuple[str, ...]:
    items = [] if entry is None else entry.items("labels, such as [product, growth]") or []
    if entry is not None and len(items) > _LABELS_MAX:
        entry.problem(f"at most {_LABELS_MAX} labels", str(len(items)))
    labels = [item.words("a label", 60) for item in items]
    return tuple(label for label in labels if label is not None)


def _duration(entry: Entry | None) -> int:
    length_ms = None if entry is None else entry.duration_ms(DURATIONS_MS, WINDOW_MAX_MS)
    return length_ms or 0


def _instant(entry: Entry | None) -> int | None:
    expected = "an instant in UTC such as 2026-01-31T09:00:00Z"
    text = None if entry is None else entry.words(expected, 40)
    if entry is None or text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        entry.problem(expected)
        return None
    if at.tzinfo is None:
        entry.problem(f"{expected}, with its Z")
        return None
    return epoch_ms(at)


def _sorted(series: Mapping[str, Series]) -> tuple[Series, ...]:
    return tuple(series[key] for key in sorted(series))


def _taken(names: Iterable[str]) -> frozenset[str]:
    return frozenset(part for name in names for part in (name, name.partition(".")[0]))


_TAKEN = _taken((*FUNCTIONS, *NAMES, *WORDS))
