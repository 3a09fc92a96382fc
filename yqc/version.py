"""The version of yqc, as the package's metadata has it."""

__version__ = "0.1.0"
