"""Results of long work that are kept between runs, and the folders that yqc may write into.

In reading order:

- `store`: the store, bytes under keys; its docstring lists who uses it.
- `folders`: folders with yqc's marker inside; only those are ever removed.
- `locks`: locks on folders that a running process works in.
"""

from yqc.store.store import Entry, Store, user_store

__all__ = ["Entry", "Store", "user_store"]
