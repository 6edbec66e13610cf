"""Names and functions of the language: what each asks of a customer, what each takes."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from streams.customers.series import MILLIONTHS, Comparison, Series, Where
from streams.segments import tree
from streams.segments.functions import (
    DAYS_ACTIVE_MAX,
    FUNCTIONS,
    ITEM_FIELDS,
    NAMES,
    SUBSCRIPTION_FIELDS,
    WORDS,
    Gives,
)
from streams.segments.literals import DAY_MS, Reader, Vocabulary
from streams.segments.syntax import Syntax
from streams.segments.view import EVER_MS, ORDERS, REFUNDS
from streams.segments.wheres import read_where


@dataclass(frozen=True, slots=True)
class Amount:
    """A measure to be compared: `scale` units of it are one of what is written."""

    measure: tree.Measure
    gives: Gives
    scale: int = 1
    rounded_up: tree.Measure | None = None
    """For a mean: the same, rounded up; `measure` is rounded down."""
    decimals: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """Something that is text; `values` are all it can be, where that is known."""

    source: Literal["trait", "subscription", "dimension"]
    name: str
    values: tuple[str, ...] = ()
    dimension: str = ""


@dataclass(frozen=True, slots=True)
class TextSet:
    """A trait that is a set of texts."""

    name: str


Found = tree.Rule | Amount | Text | TextSet


class Calls(Reader):
    """Reads names and calls."""

    def __init__(self, syntax: Syntax, vocabulary: Vocabulary) -> None:
        super().__init__(syntax, vocabulary)
        self._money = 10**vocabulary.exponent
        self._functions: dict[str, Callable[[ast.Call], Found]] = {
            **dict.fromkeys(("orders", "spend"), self._orders),
            **dict.fromkeys(("refunds", "net"), self._refunds),
            "count": self._count,
            **dict.fromkeys(("sum", "avg", "max", "min"), self._of_property),
            "distinct": self._distinct,
            "days_active": self._days_active,
            "days_since": self._days_since,
            "days_until": self._days_until,
            **dict.fromkeys(("first", "last"), self._moment_call),
            "ever": self._ever,
            "has": self._has,
            "subscribed": self._subscribed,
            **dict.fromkeys(("tickets", "reopened"), self._tickets),
            **dict.fromkeys(("first_reply_time", "close_time", "rating"), self._ticket_mean),
            "in_segment": self._in_segment,
            "bucket": self._bucket,
        }
        assert self._functions.keys() == FUNCTIONS.keys()

    def read(self, node: ast.expr) -> Found:
        """Return what a name or a call asks."""
        if isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name):
                raise self.refusal(node.func, "the name of a function before the parenthesis")
            name = node.func.id
            if name not in self._functions:
                raise self.unknown(node.func, "a function", name, FUNCTIONS)
            return self._functions[name](node)
        if isinstance(node, ast.Attribute):
            name = self.syntax.written(node)
            if name in NAMES:
                return self._name(node, name)
            raise self.unknown(node, "a name", name, NAMES)
        if isinstance(node, ast.Name):
            return self._name(node, node.id)
        raise self.refusal(node, "a name or a function")

    # -- names -----------------------------------------------------------------------------

    def _name(self, node: ast.expr, name: str) -> Found:
        vocabulary = self.vocabulary
        if name in vocabulary.traits:
            return self._trait(name, vocabulary.traits[name])
        if name in vocabulary.exclusive and name != "rfm":
            self.members.add(name)
            return Text("dimension", name, vocabulary.exclusive[name], name)
        if name in ("plan", "product", "tier"):
            return Text("subscription", name)
        if name in ("mrr", "arr"):
            return Amount(tree.SubscriptionSum("mrr", 12 if name == "arr" else 1), "money", self._money)
        match name:
            case "tenure":
                return Amount(tree.Elapsed(tree.FirstPaid(), False), "duration", DAY_MS)
            case "rfm.segment":
                return Text("dimension", name, vocabulary.exclusive["rfm"], "rfm")
            case "rfm.r" | "rfm.f" | "rfm.m":
                letter: Literal["r", "f", "m"] = "r" if name[-1] == "r" else "f" if name[-1] == "f" else "m"
                return Amount(tree.Score(letter), "number")
            case "seats":
                return Amount(tree.SubscriptionSum("seats"), "number")
            case "renews_at" | "trial_ends_at":
                which: Literal["renews_at", "trial_ends_at"] = (
                    "renews_at" if name == "renews_at" else "trial_ends_at"
                )
                return Amount(tree.SubscriptionTime(which), "timestamp")
            case "tickets_open":
                return Amount(tree.OpenTickets(), "number")
            case "ticket_open":
                return tree.Compared(tree.OpenTickets(), ">=", 1)
        if name in FUNCTIONS:
            raise self.refusal(node, f"parentheses after a function, such as {FUNCTIONS[name].form}")
        known = {*NAMES, *vocabulary.traits, *vocabulary.exclusive} - {"rfm"}
        raise self.unknown(node, "a name of the language or a declared trait", name, known)

    def _trait(self, name: str, kind: str) -> Found:
        match kind:
            case "string":
                return Text("trait", name)
            case "number":
                return Amount(tree.TraitNumber(name), "number", MILLIONTHS)
            case "boolean":
                return tree.TraitTruth(name, True)
            case "timestamp":
                return Amount(tree.TraitTime(name), "timestamp")
            case _:
                return TextSet(name)

    # -- arguments -------------------------------------------------------------------------

    def _arguments(
        self, node: ast.Call, least: int, most: int, *, where: bool = False
    ) -> tuple[list[ast.expr], ast.expr | None]:
        """Return the arguments, and what stands behind `where`, if anything."""
        assert isinstance(node.func, ast.Name)
        form = FUNCTIONS[node.func.id].form
        arguments, condition = list(node.args), None
        for at in range(1, len(arguments)):
            if self.syntax.is_where(arguments[at - 1], arguments[at]):
                if not where or at != len(arguments) - 1:
                    raise self.refusal(arguments[at], f"{form} {'with one' if where else 'without'} `where`")
                condition = arguments.pop()
                break
        if not least <= len(arguments) <= most:
            count = f"{least}" if least == most else f"{least} to {most}"
            raise self.refusal(node, f"{count} argument(s), as in {form}", f"{len(arguments)}")
        return arguments, condition

    def _function(self, node: ast.Call) -> str:
        assert isinstance(node.func, ast.Name)
        return node.func.id

    def _activity(self, node: ast.expr) -> str:
        name = self.text(node, "the name of an event in quotes")
        events = self.vocabulary.events
        if events is not None and name not in events:
            raise self.unknown(node, "a declared event", name, events)
        return name

    def _activity_where(self, name: str, node: ast.expr | None) -> Where | None:
        if node is None:
            return None
        events = self.vocabulary.events
        return read_where(self, node, None if events is None else events[name], f"the event {name}")

    def _order_series(self, node: ast.expr | None) -> str:
        if node is None:
            return ORDERS
        return self.keep(Series("order", where=read_where(self, node, ITEM_FIELDS, "an order's lines")))

    # -- orders ----------------------------------------------------------------------------

    def _orders(self, node: ast.Call) -> Amount:
        arguments, where = self._arguments(node, 1, 1, where=True)
        length_ms = self.window(arguments[0], self._function(node))
        series = self._order_series(where)
        if self._function(node) == "orders":
            return Amount(tree.Counted(series, length_ms), "number")
        return Amount(tree.Totalled(series, length_ms, True), "money", self._money)

    def _refunds(self, node: ast.Call) -> Amount:
        arguments, _ = self._arguments(node, 1, 1)
        length_ms = self.window(arguments[0], self._function(node))
        if self._function(node) == "refunds":
            return Amount(tree.Totalled(REFUNDS, length_ms, True), "money", self._money)
        return Amount(tree.Netted(length_ms), "money", self._money)

    # -- events ----------------------------------------------------------------------------

    def _count(self, node: ast.Call) -> Amount:
        (name, window), where = self._arguments(node, 2, 2, where=True)
        activity = self._activity(name)
        series = self.keep(Series("activity", activity, self._activity_where(activity, where)))
        return Amount(tree.Counted(series, self.window(window, "count")), "number")

    def _of_property(self, node: ast.Call) -> Amount:
        function = self._function(node)
        if node.args and self.is_name(node.args[0], "spend"):
            (_, window), where = self._arguments(node, 2, 2, where=True)
            series, rising, gives, scale = self._order_series(where), True, "money", self._money
            decimals = self.vocabulary.exponent
        else:
            (name, field, window), where = self._arguments(node, 3, 3, where=True)
            activity = self._activity(name)
            value = self._property(activity, field, "number")
            condition = self._activity_where(activity, where)
            series = self.keep(Series("activity", activity, condition, value))
            rising, gives, scale, decimals = False, "number", MILLIONTHS, 6
        length_ms = self.window(window, function)
        if length_ms == EVER_MS and function in ("max", "min"):
            raise self.refusal(window, f"a window of up to 10 years in {function}()")
        kind: Gives = "money" if gives == "money" else "number"
        if function == "sum":
            return Amount(tree.Totalled(series, length_ms, rising), kind, scale)
        if function == "avg":
            down, up = (tree.Averaged(series, length_ms, rounded) for rounded in (False, True))
            return Amount(down, kind, scale, up, decimals)
        return Amount(tree.Outermost(series, length_ms, function == "max"), kind, scale)

    def _property(self, activity: str, node: ast.expr, kind: str | None) -> str:
        if not isinstance(node, ast.Name) or node.id in WORDS:
            raise self.refusal(node, "the name of a property")
        events = self.vocabulary.events
        if events is not None:
            if node.id not in events[activity]:
                raise self.unknown(node, f"a property of the event {activity}", node.id, events[activity])
            if kind is not None and events[activity][node.id] != kind:
                raise self.refusal(node, f"a {kind}", f"a {events[activity][node.id]} as declared")
        return node.id

    def _distinct(self, node: ast.Call) -> Amount:
        if node.args and isinstance(node.args[0], ast.Name):
            (field, window), where = self._arguments(node, 2, 2, where=True)
            assert isinstance(field, ast.Name)
            texts = [name for name, kind in ITEM_FIELDS.items() if kind == "string"]
            if field.id not in texts:
                raise self.unknown(
                    field, "a field of an order's lines, or an event in quotes", field.id, texts
                )
            condition = None if where is None else read_where(self, where, ITEM_FIELDS, "an order's lines")
            series = self.keep(Series("order", None, condition, field.id, distinct=True))
        else:
            (name, field, window), where = self._arguments(node, 3, 3, where=True)
            activity = self._activity(name)
            value, condition = self._property(activity, field, None), self._activity_where(activity, where)
            series = self.keep(Series("activity", activity, condition, value, distinct=True))
        if self.is_name(window, "ever"):
            raise self.refusal(window, "a window of up to 10 years in distinct()")
        return Amount(tree.Varied(series, self.window(window, "distinct")), "number")

    def _days_active(self, node: ast.Call) -> Amount:
        arguments, _ = self._arguments(node, 1, 2)
        name = self._activity(arguments[0]) if len(arguments) == 2 else None
        length_ms = self.duration(arguments[-1], "a window such as 28d in days_active()")
        if length_ms % DAY_MS or length_ms > DAYS_ACTIVE_MAX * DAY_MS:
            raise self.refusal(
                arguments[-1], f"a window of 1 to {DAYS_ACTIVE_MAX} whole days in days_active()"
            )
        return Amount(tree.Counted(self.keep(Series("active_day", name)), length_ms), "number")

    def _ever(self, node: ast.Call) -> tree.Rule:
        (name,), where = self._arguments(node, 1, 1, where=True)
        activity = self._activity(name)
        series = self.keep(Series("activity", activity, self._activity_where(activity, where)))
        return tree.Known(tree.Happened(series, "last"))

    # -- instants --------------------------------------------------------------------------

    def _moment_call(self, node: ast.Call) -> Amount:
        which: tree.Extreme = "first" if self._function(node) == "first" else "last"
        arguments, where = self._arguments(node, 0, 1, where=True)
        if not arguments:
            return Amount(tree.Paid(which), "timestamp")
        activity = self._activity(arguments[0])
        series = self.keep(Series("activity", activity, self._activity_where(activity, where)))
        return Amount(tree.Happened(series, which), "timestamp")

    def _days_since(self, node: ast.Call) -> Amount:
        (argument,), where = self._arguments(node, 1, 1, where=True)
        moment: tree.Moment
        if isinstance(argument, ast.Constant):
            activity = self._activity(argument)
            series = self.keep(Series("activity", activity, self._activity_where(activity, where)))
            moment = tree.Happened(series, "last")
        elif where is not None:
            raise self.refusal(where, "`where` only behind the name of an event in quotes")
        else:
            moment = self._moment(argument)
        declared = isinstance(moment, tree.TraitTime)
        if isinstance(moment, tree.SubscriptionTime):
            raise self.refusal(argument, "an instant that has been: this one is to come, ask days_until()")
        return Amount(tree.Elapsed(moment, declared), "duration", DAY_MS)

    def _days_until(self, node: ast.Call) -> Amount:
        (argument,), _ = self._arguments(node, 1, 1)
        moment = self._moment(argument)
        if isinstance(moment, tree.Paid | tree.Happened):
            raise self.refusal(argument, "an instant to come: a trait, renews_at or trial_ends_at")
        return Amount(tree.Remaining(moment), "duration", DAY_MS)

    def _moment(self, node: ast.expr) -> tree.Moment:
        found = self.read(node) if isinstance(node, ast.Name | ast.Call) else None
        if not isinstance(found, Amount) or found.gives != "timestamp":
            raise self.refusal(
                node, "an instant: an event in quotes, first(), last(), or a trait that is a timestamp"
            )
        measure = found.measure
        assert isinstance(measure, tree.Paid | tree.Happened | tree.TraitTime | tree.SubscriptionTime)
        return measure

    # -- the rest --------------------------------------------------------------------------

    def _has(self, node: ast.Call) -> tree.Rule:
        (argument,), _ = self._arguments(node, 1, 1)
        if isinstance(argument, ast.Name) and argument.id in self.vocabulary.traits:
            return tree.TraitSet(argument.id, self.vocabulary.traits[argument.id])
        found = self.read(argument)
        if isinstance(found, Amount):
            return tree.Known(found.measure)
        if isinstance(found, Text) and found.source == "subscription":
            # No plan is called "": it is told apart from every plan there is.
            return tree.Subscribed(Comparison(found.name, "!=", ""))
        raise self.refusal(argument, "something that can be missing, such as a trait")

    def _subscribed(self, node: ast.Call) -> tree.Rule:
        arguments, _ = self._arguments(node, 0, 1)
        if not arguments:
            return tree.Subscribed(None)
        return tree.Subscribed(read_where(self, arguments[0], SUBSCRIPTION_FIELDS, "a subscription"))

    def _tickets(self, node: ast.Call) -> Amount:
        arguments, _ = self._arguments(node, 1, 1)
        function = self._function(node)
        length_ms = self.duration(arguments[0], f"a window such as 90d in {function}()")
        return Amount(
            tree.TicketCount("opened" if function == "tickets" else "reopened", length_ms), "number"
        )

    def _ticket_mean(self, node: ast.Call) -> Amount:
        arguments, _ = self._arguments(node, 1, 1)
        function = self._function(node)
        length_ms = self.duration(arguments[0], f"a window such as 90d in {function}()")
        of: Literal["first_reply_time", "close_time", "rating"] = (
            "rating"
            if function == "rating"
            else "close_time"
            if function == "close_time"
            else "first_reply_time"
        )
        down, up = (tree.TicketMean(of, length_ms, rounded) for rounded in (False, True))
        if of == "rating":
            return Amount(down, "number", MILLIONTHS, up, 6)
        return Amount(down, "duration", DAY_MS, up, 7)

    def _in_segment(self, node: ast.Call) -> tree.Rule:
        (argument,), _ = self._arguments(node, 1, 1)
        key = self.text(argument, "the key of a segment in quotes")
        if key not in self.vocabulary.segments:
            raise self.unknown(argument, "the key of a segment", key, self.vocabulary.segments)
        if key in self.vocabulary.unsettled:
            raise self.refusal(argument, "a segment without dwell_enter, dwell_exit and cooldown", f"`{key}`")
        self.members.add(key)
        return tree.Member(key)

    def _bucket(self, node: ast.Call) -> Amount:
        (argument,), _ = self._arguments(node, 1, 1)
        return Amount(tree.Bucket(self.text(argument, "a salt in quotes")), "number")
