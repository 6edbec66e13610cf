"""The page of figures: what a JSON of rounds comes to, as tables, between the markers of the pages."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Results, Spread, step_cost
from benchmarks.process_cpu import ROOT

RESULTS = ROOT / "benchmarks/results/latest.json"
PAGE = ROOT / "docs/performance.md"
PLOT = ROOT / "docs/performance.svg"
README = ROOT / "README.md"

STAGES = ("decode", "apply", "evaluate", "write")
NAMES = {"retail": "Online Retail II", "synthetic": "synthetic"}

Table = list[Sequence[str]]


def sections(found: Mapping[str, Any]) -> dict[str, str]:
    """Return marker name to the Markdown that belongs between its markers."""
    results = Results(found["runs"])
    parts = {
        "provenance": _provenance(found),
        "peers": markdown(_peers(results)),
        "whole": markdown(_whole(results)),
        "stages": markdown(_stages(results)),
        "steps": _steps(results),
        "restarts": markdown(_restarts(results)),
        "agreement": _agreement(found["agreements"]),
        "sdk": _sdk(found.get("sdk")),
    }
    return parts | {"headline": _headline(found, results)}


def filled(page: str, parts: Mapping[str, str]) -> str:
    """Return a page with everything between `<!-- bench NAME -->` and `<!-- /bench -->` replaced."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}\n{parts[match[2]]}\n{match[3]}"

    return re.sub(r"(<!-- bench (\w+) -->)\n.*?\n?(<!-- /bench -->)", replaced, page, flags=re.DOTALL)


def markdown(table: Table) -> str:
    """Return rows, the first of which is the head, as a Markdown table; figures are right-aligned."""
    head, *rows = table
    rule = ["---" if index == 0 else "--:" for index in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _case(case: Mapping[str, Any]) -> str:
    partitions = f"{case['partitions']} partition{'s' * (case['partitions'] > 1)}"
    return f"{NAMES[case['stream']]}, {case['mode']} clock, {partitions}"


def _shoal_whole(results: Results) -> Iterable[dict[str, Any]]:
    return [each for each in results.cases() if each["contender"] == "shoal" and each["extent"] == "whole"]


def _events(results: Results, case: Mapping[str, Any]) -> str:
    return format(int(results.of(**case)[0]["figures"]["events"]), ",")


def _shown(spread: Spread | None, form: str = ",.1f") -> str:
    return "-" if spread is None else spread.shown(form)


def _whole(results: Results) -> Table:
    table: Table = [
        (
            "log", "events", "CPU µs/event, first to last", "CPU µs/event, whole process", "events/s",
            "steps", "ms a step", "transactions", "peak MiB", "warnings",
        )
    ]  # fmt: skip
    for case in _shoal_whole(results):

        def of(figure: str, form: str = ",.1f", case: Mapping[str, Any] = case) -> str:
            return _shown(results.spread(figure, **case), form)

        table.append(
            (
                _case(case), _events(results, case), of("cpu_us_first_to_last"), of("cpu_us_whole"),
                of("events_per_s", ",.0f"), of("steps", ",.0f"), of("step_ms"), of("transactions", ",.0f"),
                of("peak_mib", ",.0f"), of("troubles", ",.0f"),
            )
        )  # fmt: skip
    return table


def other_us(figures: Mapping[str, float]) -> float:
    """Return the CPU of a run, from first to last event, that no stage of the worker claims."""
    return figures["cpu_us_first_to_last"] - sum(figures.get(f"stage_{name}_us", 0.0) for name in STAGES)


def _stages(results: Results) -> Table:
    table: Table = [("log", *STAGES, "everything else", "together")]
    for case in _shoal_whole(results):
        stages = [_shown(results.spread(f"stage_{name}_us", **case), ".2f") for name in STAGES]
        rest = _shown(results.spread(other_us, **case), ".2f")
        table.append(
            (_case(case), *stages, rest, _shown(results.spread("cpu_us_first_to_last", **case), ".2f"))
        )
    return table


def _peers(results: Results) -> Table:
    table: Table = [
        (
            "same events, 8 partitions" if _partitions(results) == {8} else "same events", "events",
            "Shoal, CPU µs/event", "Faust, CPU µs/event", "Faust ÷ Shoal", "the same, whole process",
            "peak MiB, Shoal / Faust", "Shoal on the whole log, CPU µs/event",
        )
    ]  # fmt: skip
    for case in results.cases():
        if case["contender"] != "faust":
            continue
        shoal = {**case, "contender": "shoal"}
        memory = "{} / {}".format(*(_shown(results.spread("peak_mib", **c), ".0f") for c in (shoal, case)))
        table.append(
            (
                NAMES[case["stream"]],
                _events(results, case),
                _shown(results.spread("cpu_us_first_to_last", **shoal)),
                _shown(results.spread("cpu_us_first_to_last", **case)),
                _shown(results.ratio("cpu_us_first_to_last", case, shoal)),
                _shown(results.ratio("cpu_us_whole", case, shoal)),
                memory,
                _shown(results.spread("cpu_us_first_to_last", **{**shoal, "extent": "whole"})),
            )
        )
    return table


def _partitions(results: Results) -> set[int]:
    return {case["partitions"] for case in results.cases() if case["contender"] == "faust"}


def _steps(results: Results) -> str:
    cases = [case for case in results.cases() if case["extent"] == "steps"]
    table: Table = [("records in a chunk", "steps", "transactions", "records a step", "CPU ms a step")]
    for case in cases:
        table.append(
            (
                str(case["chunk"]),
                _shown(results.spread("steps", **case), ",.0f"),
                _shown(results.spread("transactions", **case), ",.0f"),
                _shown(results.spread(lambda f: f["events"] / f["steps"], **case), ",.1f"),
                _shown(results.spread(_ms_a_step, **case), ",.2f"),
            )
        )
    by_round: dict[int, list[Mapping[str, float]]] = {}
    for run in results.of(extent="steps"):
        by_round.setdefault(run["round"], []).append(run["figures"])
    lines = [step_cost(runs) for runs in by_round.values()]
    if not lines:
        return markdown(table)
    fixed, record = (Spread.of(each[at] for each in lines) for at in (0, 1))
    return (
        f"{markdown(table)}\n\nThe line through them: **{fixed.shown('.2f')} ms a step and "
        f"{record.shown('.1f')} µs an event.**"
    )


def _ms_a_step(figures: Mapping[str, float]) -> float:
    return figures["cpu_us_first_to_last"] * figures["events"] / figures["steps"] / 1e3


def _restarts(results: Results) -> Table:
    table: Table = [("state of", "rows restored", "s to ready", "CPU s to ready", "the same with no state")]
    for case in _shoal_whole(results):
        if "restart_s" not in results.of(**case)[0]["figures"]:
            continue
        empty = "{} s, {} CPU s".format(
            *(_shown(results.spread(each, **case), ".2f") for each in ("start_s", "start_cpu_s"))
        )
        table.append(
            (
                _case(case),
                _shown(results.spread("restart_rows", **case), ",.0f"),
                _shown(results.spread("restart_s", **case), ".2f"),
                _shown(results.spread("restart_cpu_s", **case), ".2f"),
                empty,
            )
        )
    return table


def _agreement(agreements: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for each in agreements:
        against = (
            "SQL over the invoice lines (values)" if each["with"] == "sql" else "Faust (values and changes)"
        )
        stream = f"{NAMES[each['stream']]}, {each['extent']}"
        line = f"- {stream}: {each['customers']:,} customers, {each['changes']:,} changes, equal to {against}"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines) or "- nothing was compared"


def _sdk(found: Mapping[str, Any] | None) -> str:
    """What benchmarks.sdk writes: `cases`, each with its `rounds`, each of those figure to value."""
    if found is None:
        return "Not part of this run."
    cases: Mapping[str, Any] = found["cases"]
    names = list(next(iter(cases.values()))["rounds"][0])
    table: Table = [("Kafka, buffer", *(name.replace("_", " ") for name in names))]
    for case, measured in cases.items():
        table.append(
            (case, *(Spread.of(each[name] for each in measured["rounds"]).shown() for name in names))
        )
    return markdown(table)


def _provenance(found: Mapping[str, Any]) -> str:
    made = found["provenance"]
    dirty = ", with changes not committed" if made["dirty"] else ""
    results = Results(found["runs"])
    # A run that was interrupted has fewer of its last cases.
    rounds = min((len(results.of(**case)) for case in results.cases()), default=0)
    troubles = sum(run["figures"].get("troubles", 0) for run in found["runs"])
    load = ", ".join(f"{made[key][0]:.1f}" for key in ("load_at_start", "load_at_end"))
    return (
        f"{rounds} round{'s' * (rounds != 1)} at {made['date']}, commit `{made['commit'][:12]}`{dirty}: "
        f"`{made['command']}`, on {made['cores']} cores of {made['cpu']} with {made['memory_gib']} GiB, "
        f"shared with the broker, Linux {made['kernel']}, Python {made['python']}. Load at start "
        f"and end: {load}; warnings and errors in the workers' logs: {troubles:.0f}."
    )


def _headline(found: Mapping[str, Any], results: Results) -> str:
    shoal = {"contender": "shoal", "stream": "synthetic", "mode": "event"}
    whole = [
        case for case in _shoal_whole(results) if case["stream"] == "synthetic" and case["mode"] == "event"
    ]
    faust = {"contender": "faust", "stream": "synthetic"}
    cost = results.spread("cpu_us_first_to_last", **whole[-1])
    ratio = results.ratio("cpu_us_first_to_last", faust, {**shoal, "extent": "prefix"})
    return (
        f"On {_events(results, whole[-1])} synthetic events an event costs the worker {_shown(cost)} µs "
        f"of CPU; on the events both read, idiomatic Faust spends {_shown(ratio)} times what Shoal does: "
        f"[docs/performance.md](docs/performance.md)."
    )


def rewrite(found: Mapping[str, Any], pages: Iterable[Path] = (PAGE, README)) -> None:
    """Put the sections into the pages."""
    parts = sections(found)
    for page in pages:
        page.write_text(filled(page.read_text(), parts))
