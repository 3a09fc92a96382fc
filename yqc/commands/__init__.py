"""The commands, one function each. None imports torch before it runs."""
