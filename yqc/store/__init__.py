"""Results of long work that are kept between runs, and the folders that yqc may write into.

In reading order:

- `folders`: folders with yqc's marker inside; only those are ever removed.
- `locks`: locks on folders that a running process works in.
"""
