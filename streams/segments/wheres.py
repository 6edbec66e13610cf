"""The part of an expression behind `where`: a condition on one event, one order line, one subscription."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction

from streams.customers.series import Comparison, Joined, Negated, Operator, Where
from streams.segments.literals import Reader
from streams.segments.syntax import Refused

OPERATORS: dict[type[ast.cmpop], Operator] = {
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
}
MIRRORED: dict[Operator, Operator] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


def read_where(reader: Reader, node: ast.expr, fields: Mapping[str, str] | None, of: str) -> Where:
    """Return a condition on the named fields; with None any field is known, of whatever type it is compared.

    Fields are `string`, `number`, `boolean` or `money`; money is compared in minor units, numbers in
    millionths. Raises Refused.
    """
    return _Where(reader, fields, of).read(node)


class _Where:
    def __init__(self, reader: Reader, fields: Mapping[str, str] | None, of: str) -> None:
        self._reader, self._fields, self._of = reader, fields, of

    def read(self, node: ast.expr) -> Where:
        if isinstance(node, ast.BoolOp):
            return Joined(isinstance(node.op, ast.And), tuple(map(self.read, node.values)))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Negated(self.read(node.operand))
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Name):
            # A truth by its bare name.
            self._expect(node, self._type(node), "boolean")
            return Comparison(node.id, "==", True)
        raise self._reader.refusal(
            node, f'a comparison of a field of {self._of}, such as category == "books"'
        )

    def _comparison(self, node: ast.Compare) -> Where:
        reader = self._reader
        if len(node.ops) != 1:
            raise reader.refusal(node, "one comparison at a time, joined with `and`")
        left, operation, right = node.left, node.ops[0], node.comparators[0]
        if isinstance(operation, ast.In | ast.NotIn):
            found = self._within(left, right)
            return Negated(found) if isinstance(operation, ast.NotIn) else found
        if type(operation) not in OPERATORS:
            raise Refused(reader.syntax.at(node), "expected one of == != < <= > >= in, got another sign")
        operator = OPERATORS[type(operation)]
        if not isinstance(left, ast.Name) or left.id in ("true", "false"):
            left, right, operator = right, left, MIRRORED[operator]
        operand = self._operand(left, right)
        if operator not in ("==", "!=") and isinstance(operand, str | bool):
            raise reader.refusal(node, "== or != for what is no number")
        return Comparison(self._name(left), operator, operand)

    def _within(self, left: ast.expr, right: ast.expr) -> Where:
        listed = right.elts if isinstance(right, ast.Tuple) else [right]
        if not listed:
            raise self._reader.refusal(right, "at least one value")
        operands = tuple(self._operand(left, each) for each in listed)
        if any(isinstance(operand, bool) for operand in operands) or len(set(map(type, operands))) > 1:
            raise self._reader.refusal(right, 'texts or numbers of one kind, such as ("a", "b")')
        return Comparison(self._name(left), "in", operands)

    def _operand(self, left: ast.expr, right: ast.expr) -> str | int | bool:
        value = self._reader.literal(right)
        declared = self._type(left)
        if isinstance(value, str):
            self._expect(right, declared, "string")
            return value
        if isinstance(value, bool):
            self._expect(right, declared, "boolean")
            return value
        if isinstance(value, Fraction):
            if declared != "money":
                self._expect(right, declared, "number")
                return self._reader.millionths(right, value)
            minor = value * 10**self._reader.vocabulary.exponent
            if minor.denominator != 1:
                raise self._reader.refusal(
                    right, f"an amount with {self._reader.vocabulary.exponent} decimals at most"
                )
            return int(minor)
        raise self._reader.refusal(right, "a text, a number, true or false")

    def _name(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            return node.id
        raise self._reader.refusal(node, f"a field of {self._of}")

    def _type(self, node: ast.expr) -> str | None:
        name = self._name(node)
        if self._fields is None:
            return None
        if name not in self._fields:
            raise self._reader.unknown(node, f"a field of {self._of}", name, self._fields)
        return self._fields[name]

    def _expect(self, node: ast.expr, declared: str | None, found: str) -> None:
        if declared is not None and declared != found:
            raise self._reader.refusal(node, f"a {declared} as declared", f"a {found}")
