"""`python -m yqc` is the command line."""

from yqc.cli import main

main()
