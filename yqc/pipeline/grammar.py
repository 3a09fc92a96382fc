"""The grammar of pipeline text: `name{key=value key=value},name` to items, with their positions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from yqc.errors import PipelineError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
BARE = re.compile(r'[^\s{}"=]+')
SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class Setting:
    """One `key=value` of an options text, with the positions of both."""

    key: str
    key_at: int
    value: str
    value_at: int


@dataclass(frozen=True)
class Item:
    """One `name{...}` of a pipeline text, with its position."""

    name: str
    at: int
    settings: tuple[Setting, ...]


def caret(message: str, text: str, at: int, length: int = 1) -> PipelineError:
    """Make an error that points at `length` characters of `text` from position `at`."""
    line = re.sub(r"\s", " ", text)
    return PipelineError(f"{message}\n  {line}\n  {' ' * at}{'^' * max(1, length)}")


def split(text: str) -> list[Item]:
    """Split a pipeline text into its items.

    Raises:
        PipelineError: the text does not follow the grammar; a caret shows where.
    """
    reader = _Reader(text)
    items = [reader.item()]
    while reader.skip(","):
        items.append(reader.item())
    if reader.at < len(text):
        raise reader.error("expected ',' or the end")
    return items


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def item(self) -> Item:
        self.space()
        at, name = self.at, self.take(NAME)
        if name is None:
            raise self.error("expected the name of a pass")
        return Item(name, at, tuple(self.settings()) if self.skip("{") else ())

    def settings(self) -> Iterable[Setting]:
        while not self.skip("}"):
            if self.at == len(self.text):
                raise self.error("expected '}'")
            key_at, key = self.at, self.take(NAME)
            if key is None:
                raise self.error("expected an option, key=value, or '}'")
            if not self.skip("="):
                raise self.error(f"expected '=' and a value after {key!r}")
            value_at = self.at
            value = self.take(QUOTED) or self.take(BARE)
            if value is None:
                raise self.error(f"expected a value for {key!r}")
            yield Setting(key, key_at, value, value_at)
            self.space()

    def take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return match.group() if match else None

    def skip(self, mark: str) -> bool:
        self.space()
        return self.take(re.compile(rf"{re.escape(mark)}\s*")) is not None

    def space(self) -> None:
        self.take(SPACE)

    def error(self, message: str) -> PipelineError:
        return caret(message, self.text, self.at)
