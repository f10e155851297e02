"""Cuts over the columns of a table, written as people write them in Python; nothing is evaluated by Python.

    ZWARN == 0 and SPECTYPE in ('GALAXY', 'QSO') and not Z < 0.001
    specz_flag_homogeneous and specz_redshift_err < 0.005 * (1 + specz_redshift)

Logic has three values, as in SQL: a comparison with a value that is absent is neither true nor false, and
such a row is not kept unless the rest of the cut decides it.
"""

import ast
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from catalogs.errors import UsageError
from catalogs.tables.columns import Columns
from catalogs.tables.names import find, listed

LONGEST = 2000
"""Characters of a cut."""
COMPARISONS: dict[type, Callable[[Any, Any], np.ndarray]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
ARITHMETIC: dict[type, Callable[[Any, Any], np.ndarray]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
LANGUAGE = "a cut has columns, numbers, 'texts', True, False, == != < <= > >= in, and or not, + - * / and ()"
TRUE, FALSE = ("true", "t"), ("false", "f")
"""Truth values in text tables, in any case."""


class Answer(NamedTuple):
    """For each row (N,) whether something holds, and whether it does not: neither where a value is absent."""

    yes: np.ndarray
    no: np.ndarray


class Value(NamedTuple):
    """Values (N,) of an expression, or one for all rows, and where they are known."""

    values: np.ndarray
    known: np.ndarray | bool
    text: str
    """As it was written."""


class Cut:
    """A cut, checked when it is made.

    Raises UsageError where the text is none.
    """

    def __init__(self, text: str):
        self.text = text
        try:
            if len(text) > LONGEST:
                raise ValueError(f"it is longer than {LONGEST} characters")
            self.tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UsageError(f"--where {text!r} cannot be read ({_reason(error)}): {LANGUAGE}") from None
        self.names = tuple(dict.fromkeys(n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name)))

    def rows(self, columns: dict[str, np.ma.MaskedArray], n: int) -> np.ndarray:
        """Rows that are kept, (n,) bool; columns (n,) by the names that the cut has for them."""
        try:
            with np.errstate(all="ignore"):
                return np.broadcast_to(self._answer(self.tree, columns).yes, n)
        except (RecursionError, OverflowError) as error:
            raise UsageError(f"--where {self.text!r} cannot be computed ({_reason(error)})") from None

    def _answer(self, node: ast.expr, columns: dict[str, np.ma.MaskedArray]) -> Answer:
        if isinstance(node, ast.BoolOp):
            answers = [self._answer(value, columns) for value in node.values]
            return reduce(_and if isinstance(node.op, ast.And) else _or, answers)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return Answer(*reversed(self._answer(node.operand, columns)))
        if isinstance(node, ast.Compare):
            return self._comparison(node, columns)
        value = self._value(node, columns)
        truth = _truth(value)
        if truth is None:
            raise self._refused(f"{value.text} is not true or false: compare it")
        return Answer(truth & value.known, ~truth & value.known)

    def _comparison(self, node: ast.Compare, columns: dict[str, np.ma.MaskedArray]) -> Answer:
        sides = [node.left, *node.comparators]
        answers = []
        for left, symbol, right in zip(sides, node.ops, sides[1:], strict=False):
            if isinstance(symbol, ast.In | ast.NotIn):
                answer = self._membership(left, right, columns)
                answers.append(answer if isinstance(symbol, ast.In) else Answer(*reversed(answer)))
            elif type(symbol) in COMPARISONS:
                pair = self._value(left, columns), self._value(right, columns)
                answers.append(self._compared(COMPARISONS[type(symbol)], *pair))
            else:
                raise self._refused("`is` compares objects: write ==")
        return reduce(_and, answers)

    def _compared(self, compare: Callable[[Any, Any], np.ndarray], a: Value, b: Value) -> Answer:
        kinds = {_kind(a), _kind(b)}
        if kinds == {"text", "bool"}:  # True and False in a text table
            truths = _truth(a), _truth(b)
            if truths[0] is not None and truths[1] is not None:
                a, b, kinds = a._replace(values=truths[0]), b._replace(values=truths[1]), {"bool"}
        if "text" in kinds and len(kinds) > 1:
            text, other = (a, b) if _kind(a) == "text" else (b, a)
            raise self._refused(f"{text.text} is text, {other.text} is not")
        holds, known = compare(a.values, b.values), np.logical_and(a.known, b.known)
        return Answer(holds & known, ~np.asarray(holds) & known)

    def _membership(self, left: ast.expr, right: ast.expr, columns: dict[str, np.ma.MaskedArray]) -> Answer:
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise self._refused("`in` needs a list, as in SPECTYPE in ('GALAXY', 'QSO')")
        value = self._value(left, columns)
        members = (self._value(member, columns) for member in right.elts)
        return reduce(_or, (self._compared(operator.eq, value, member) for member in members))

    def _value(self, node: ast.expr, columns: dict[str, np.ma.MaskedArray]) -> Value:
        text = ast.unparse(node)
        if isinstance(node, ast.Name):
            column = columns[node.id]
            if column.ndim > 1:
                raise self._refused(f"{text} has {column.shape[1]} values in every row")
            known = ~np.ma.getmaskarray(column)
            if column.dtype.kind == "f":
                known = known & ~np.isnan(column.data)
            return Value(column.data, known, text)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
            return Value(np.asarray(_in_64_bits(node.value)), True, text)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._number(node.operand, columns)
            return value._replace(values=-value.values if isinstance(node.op, ast.USub) else value.values)
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            a, b = (self._number(side, columns) for side in (node.left, node.right))
            return Value(
                ARITHMETIC[type(node.op)](a.values, b.values), np.logical_and(a.known, b.known), text
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
            raise self._refused("write `and`, `or` in place of &, |")
        raise self._refused(f"{text} is none of what it may hold: {LANGUAGE}")

    def _number(self, node: ast.expr, columns: dict[str, np.ma.MaskedArray]) -> Value:
        value = self._value(node, columns)
        if _kind(value) != "number":
            raise self._refused(f"{value.text} is no number to compute with")
        return value._replace(values=value.values.astype(np.float64))  # integers would overflow

    def _refused(self, reason: str) -> UsageError:
        return UsageError(f"--where {self.text!r}: {reason}")


def _and(a: Answer, b: Answer) -> Answer:
    return Answer(a.yes & b.yes, a.no | b.no)


def _or(a: Answer, b: Answer) -> Answer:
    return Answer(a.yes | b.yes, a.no & b.no)


def _in_64_bits(constant: bool | int | float | str) -> bool | int | float | str:
    """The constant, as a float where it is an integer that 64 bits do not hold."""
    return float(constant) if type(constant) is int and not -(2**63) <= constant < 2**63 else constant


def _kind(value: Value) -> str:
    return {"U": "text", "b": "bool"}.get(value.values.dtype.kind, "number")


def _truth(value: Value) -> np.ndarray | None:
    """Truth values of booleans, or of texts that all say true or false; else None."""
    if value.values.dtype.kind == "b":
        return value.values
    if value.values.dtype.kind != "U":
        return None
    lower = np.char.lower(value.values)
    said = np.isin(lower, TRUE)
    return said if (said | np.isin(lower, FALSE) | ~np.asarray(value.known)).all() else None


def _reason(error: BaseException) -> str:
    return (error.msg if isinstance(error, SyntaxError) else str(error)) or type(error).__name__


def rows_where(where: str | None, table: Columns) -> np.ndarray:
    """Rows (N,) bool of a table that a cut keeps: all of them where there is none."""
    if not where:
        return np.ones(table.rows, bool)
    cut = Cut(where)
    columns = {name: table.read(column) for name, column in columns_of(cut, table.names).items()}
    return cut.rows(columns, table.rows)


def columns_of(cut: Cut, names: Sequence[str]) -> dict[str, str]:
    """The columns of a table that a cut has names for, in any case. Raises UsageError where one lacks."""
    found = {}
    for wanted in cut.names:
        name = find(names, wanted)
        if name is None:
            raise UsageError(
                f"--where {cut.text!r}: the table has no column {wanted}; it has {listed(names)}"
            )
        found[wanted] = name
    return found
