"""`python -m yqc` is the command line."""

from yqc.cli import run

run()
