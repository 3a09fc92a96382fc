"""What users register by name: criteria, range methods, observers, weight schemes, targets.

In reading order:

    sets     the sets that users can add to
    named    such a set: names from yqc, from packages, and from files
"""

from yqc.registered.named import Added, NamedSet
from yqc.registered.sets import CRITERIA, OBSERVERS, RANGES, SCHEMES, SETS, TARGET_NAMES

__all__ = [
    "CRITERIA",
    "OBSERVERS",
    "RANGES",
    "SCHEMES",
    "SETS",
    "TARGET_NAMES",
    "Added",
    "NamedSet",
]
