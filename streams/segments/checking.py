"""An expression to a rule: every name looked up, every type checked, every number made whole."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from streams.customers.series import Comparison, Series
from streams.segments import tree
from streams.segments.calls import Amount, Calls, Text, TextSet
from streams.segments.literals import NUMBER_MAX, Duration, Vocabulary
from streams.segments.syntax import Refused, Syntax, parse
from streams.segments.wheres import MIRRORED, OPERATORS


@dataclass(frozen=True, slots=True)
class Checked:
    """An expression that means something."""

    rule: tree.Rule
    series: dict[str, Series]
    """What it needs kept, by key."""
    reads: frozenset[str]
    """The segments and exclusive dimensions it reads."""


def check(text: str, vocabulary: Vocabulary) -> Checked:
    """Return what an expression means. Raises Refused: the place, what was expected, what is there."""
    syntax = parse(text)
    checker = _Checker(syntax, vocabulary)
    rule = checker.rule(syntax.root)
    return Checked(rule, checker.calls.series, frozenset(checker.calls.members))


@dataclass(frozen=True, slots=True)
class Worded:
    """A part of an expression as somebody wrote it, what it means, and what it is joined of."""

    text: str
    rule: tree.Rule
    parts: tuple[Worded, ...] = ()
    """What `and`, `or` and `not` stand before or between; nothing else is taken apart."""


def worded(text: str, vocabulary: Vocabulary) -> Worded:
    """Return an expression part by part. Raises Refused, as `check` does."""
    syntax = parse(text)
    checker = _Checker(syntax, vocabulary)

    def part(node: ast.expr) -> Worded:
        inner: list[ast.expr] = []
        if isinstance(node, ast.BoolOp):
            inner = node.values
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = [node.operand]
        return Worded(syntax.written(node), checker.rule(node), tuple(map(part, inner)))

    return part(syntax.root)


class _Checker:
    def __init__(self, syntax: Syntax, vocabulary: Vocabulary) -> None:
        self.calls = Calls(syntax, vocabulary)

    def rule(self, node: ast.expr) -> tree.Rule:
        """Return what a condition means."""
        if isinstance(node, ast.BoolOp):
            join = tree.Every if isinstance(node.op, ast.And) else tree.Some
            return join(tuple(map(self.rule, node.values)))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return tree.Opposite(self.rule(node.operand))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        literal = self.calls.literal(node)
        if isinstance(literal, bool):
            return tree.Always(literal)
        if literal is None and isinstance(node, ast.Name | ast.Attribute | ast.Call):
            found = self.calls.read(node)
            if not isinstance(found, Amount | Text | TextSet):
                return found
            raise self.calls.refusal(
                node, "something true or false", f"{_kind(found)}: compare it with something"
            )
        if isinstance(node, ast.Tuple) and self.calls.syntax.wheres:
            raise Refused(
                self.calls.syntax.wheres[0],
                "expected `where` within the parentheses of a function, got it outside",
            )
        raise self.calls.refusal(node, "a condition")

    def _comparison(self, node: ast.Compare) -> tree.Rule:
        calls = self.calls
        if len(node.ops) != 1:
            raise calls.refusal(node, "one comparison at a time, joined with `and`")
        left, operation, right = node.left, node.ops[0], node.comparators[0]
        if isinstance(operation, ast.In | ast.NotIn):
            found = self._within(left, right)
            return tree.Opposite(found) if isinstance(operation, ast.NotIn) else found
        if type(operation) not in OPERATORS:
            raise calls.refusal(node, "one of == != < <= > >= in")
        operator = OPERATORS[type(operation)]
        if calls.literal(left) is not None:
            left, right, operator = right, left, MIRRORED[operator]
        if calls.literal(left) is not None:
            raise calls.refusal(node, "something of the customer on one side")
        literal = calls.literal(right)
        if literal is None:
            raise calls.refusal(right, "a text, a number, a duration, true or false")
        subject = calls.read(left)
        assert operator != "in"
        if isinstance(subject, Amount):
            return self._amount(subject, operator, right, literal)
        if operator not in ("==", "!="):
            raise calls.refusal(node, f"== or != for {_kind(subject)}")
        if isinstance(subject, Text):
            return self._text(subject, operator == "!=", right, (right,))
        if isinstance(subject, TextSet):
            raise calls.refusal(node, f'a set asked with in: "text" in {subject.name}')
        return self._truth(subject, operator == "==", right, literal)

    def _truth(self, rule: tree.Rule, equal: bool, node: ast.expr, literal: object) -> tree.Rule:
        if not isinstance(literal, bool):
            raise self.calls.refusal(node, "true or false")
        if isinstance(rule, tree.TraitTruth):
            return tree.TraitTruth(rule.name, literal == equal)
        return rule if literal == equal else tree.Opposite(rule)

    def _within(self, left: ast.expr, right: ast.expr) -> tree.Rule:
        calls = self.calls
        literal = calls.literal(left)
        if literal is not None:
            found = calls.read(right) if isinstance(right, ast.Name) else None
            if not isinstance(found, TextSet):
                raise calls.refusal(right, "a trait that is a set of texts")
            if not isinstance(literal, str):
                raise calls.refusal(left, "a text, for the set holds texts")
            return tree.TraitHolds(found.name, literal)
        subject = calls.read(left)
        listed = tuple(right.elts) if isinstance(right, ast.Tuple) else (right,)
        if not listed or any(calls.literal(each) is None for each in listed):
            raise calls.refusal(right, 'a list of texts or numbers, such as ("a", "b")')
        if isinstance(subject, Text):
            return self._text(subject, False, right, listed)
        if isinstance(subject, Amount):
            parts = [self._amount(subject, "==", each, calls.literal(each)) for each in listed]
            return tree.Some(tuple(parts))
        raise calls.refusal(left, "a text or a number before `in` and a list", _kind(subject))

    def _text(self, subject: Text, other: bool, node: ast.expr, listed: tuple[ast.expr, ...]) -> tree.Rule:
        calls = self.calls
        texts = []
        for each in listed:
            value = calls.literal(each)
            if not isinstance(value, str):
                raise calls.refusal(each, f"a text, for {subject.name} is text")
            if subject.values and value not in subject.values:
                raise calls.unknown(each, f"a value of {subject.name}", value, subject.values)
            texts.append(value)
        unique = tuple(sorted(set(texts)))
        if subject.source == "trait":
            return tree.TraitText(subject.name, unique, other)
        if subject.source == "subscription":
            compared = Comparison(subject.name, "!=" if other else "in", unique[0] if other else unique)
            return tree.Subscribed(compared)
        chosen = tree.Valued(subject.dimension, unique)
        return tree.Opposite(chosen) if other else chosen

    def _amount(self, amount: Amount, operator: tree.Operator, node: ast.expr, literal: object) -> tree.Rule:
        threshold = self._threshold(amount, node, literal)
        if abs(threshold) >= NUMBER_MAX:
            raise self.calls.refusal(node, "a number within what can be counted")
        if amount.rounded_up is not None:
            return self._mean(amount, amount.rounded_up, operator, node, threshold)
        return compared(amount.measure, operator, threshold)

    def _mean(
        self, amount: Amount, up: tree.Measure, operator: tree.Operator, node: ast.expr, threshold: Fraction
    ) -> tree.Rule:
        # A mean is no whole number, but mean >= k says the same as floor(mean) >= k for a whole k,
        # and mean > k the same as ceil(mean) > k.
        if threshold.denominator != 1:
            raise self.calls.refusal(node, f"a number with at most {amount.decimals} decimals")
        whole = int(threshold)
        if operator in (">=", "<"):
            return tree.Compared(amount.measure, operator, whole)
        if operator in (">", "<="):
            return tree.Compared(up, operator, whole)
        equal = tree.Every((tree.Compared(amount.measure, "==", whole), tree.Compared(up, "==", whole)))
        if operator == "==":
            return equal
        return tree.Every((tree.Known(amount.measure), tree.Opposite(equal)))

    def _threshold(self, amount: Amount, node: ast.expr, literal: object) -> Fraction:
        calls = self.calls
        if amount.gives == "timestamp":
            if not isinstance(literal, str):
                raise calls.refusal(node, 'an instant such as "2026-01-31"')
            return Fraction(calls.instant_ms(node, literal))
        if amount.gives == "duration" and isinstance(literal, Duration):
            return Fraction(literal.ms)
        if isinstance(literal, Fraction):
            return literal * amount.scale
        expected = {"duration": "a number of days, or a duration such as 14d", "money": "an amount"}
        raise calls.refusal(node, expected.get(amount.gives, "a number"))


def compared(measure: tree.Measure, operator: tree.Operator, threshold: Fraction) -> tree.Rule:
    """Return the comparison of a whole measure with any number, as one with a whole number."""
    if threshold.denominator == 1:
        return tree.Compared(measure, operator, int(threshold))
    if operator in (">", ">="):
        return tree.Compared(measure, ">=", ceil(threshold))
    if operator in ("<", "<="):
        return tree.Compared(measure, "<", ceil(threshold))
    return tree.Always(False) if operator == "==" else tree.Known(measure)


def _kind(found: object) -> str:
    if isinstance(found, Amount):
        return {"money": "an amount", "duration": "a time", "timestamp": "an instant"}.get(
            found.gives, "a number"
        )
    if isinstance(found, Text):
        return "text"
    return "a set" if isinstance(found, TextSet) else "a truth"
