"""The setting whether golden files are compared or written; the pytest plugin sets it."""

UPDATE = False
