"""The number of examples of a property: the same few in `make test`, ten times as many, others each
time, in `make soak`.
"""

from hypothesis import settings

SUITE = 30  # examples of a property that asks for no number, in `make test`


def scaled(n: int) -> int:
    """Return the number of examples of a property that has `n` in `make test`."""
    return n * settings().max_examples // SUITE
