"""The pytest plugin: `pytest --update-golden` writes golden files instead of comparing them."""

from typing import Protocol


class _Parser(Protocol):
    def addoption(self, *names: str, action: str, help: str) -> None: ...  # noqa: A002


class _Config(Protocol):
    def getoption(self, name: str) -> object: ...


def pytest_addoption(parser: _Parser) -> None:
    """Add the option."""
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write the files that yqc.testing.assert_text compares with",
    )


def pytest_configure(config: _Config) -> None:
    """Read the option."""
    if config.getoption("--update-golden"):
        from yqc.testing import golden  # noqa: PLC0415  # imports torch, so only when asked for

        golden.UPDATE = True
