"""Checks of arguments, for every floor of the package: what is wrong is named, before anything is computed from it."""

from numbers import Integral, Real


def is_integer(value: object) -> bool:
    """Tell whether a value is an integer of Python or NumPy; a truth value is none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def positive_integer(name: str, value: object) -> int:
    """Return an argument as an ``int``.

    Args:
        name: What the message calls the argument.
        value: The argument.

    Raises:
        ValueError: If it is no integer, or less than 1.
    """
    if not is_integer(value) or value < 1:
        raise ValueError(f'{name} must be a positive integer; got {value!r}')
    return int(value)


def number_in(name: str, value: object, low: float, high: float) -> float:
    """Return an argument as a ``float``.

    Args:
        name: What the message calls the argument.
        value: The argument.
        low: Least value allowed.
        high: Bound that has to stay above.

    Raises:
        ValueError: If it is no number, or outside ``[low, high)``.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not low <= value < high:
        raise ValueError(f'{name} must be a number in [{low}, {high}); got {value!r}')
    return float(value)
