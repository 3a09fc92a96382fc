"""The grammar of pipeline text: `name{key=value key=[a,b]},name` to items, with their positions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from yqc.errors import OptionError, PipelineError

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
QUOTES = "'\u2018\u2019\u201c\u201d\u201e\xab\xbb"
"""Quotes of other kinds, which word processors and chats put in the place of straight ones."""
BARE = re.compile(rf'[^\s{{}}"=,{QUOTES}][^\s{{}}"=,]*')
LIST = re.compile(rf'\[(?:{QUOTED.pattern}|\[[^][{{}}"]*\]|[^][{{}}"])*\](?=[\s,}}]|$)')
"""A list in brackets; an element may be a glob with brackets of its own."""
SPACE = re.compile(r"\s*")
NO_BRACES = re.compile(rf"[(\[:]|{NAME.pattern}\s*=")
"""How options begin that stand in no braces."""
NEXT_OPTION = re.compile(rf",\s*{NAME.pattern}\s*=")


@dataclass(frozen=True)
class Setting:
    """One `key=value` of an options text, with the positions of both."""

    key: str
    key_at: int
    value: str
    value_at: int

    @property
    def name(self) -> str:
        """The field that the key names: hyphens and underscores are one."""
        return self.key.replace("-", "_")


@dataclass(frozen=True)
class Item:
    """One `name{...}` of a pipeline text, with its position."""

    name: str
    at: int
    settings: tuple[Setting, ...]

    def refuse(self, text: str, problem: str) -> OptionError:
        """Make an error that points at what is wrong in `text`.

        That is the value of the first option that the problem names and that was typed, or else the
        name of the item.
        """
        words = re.findall(r"\w+", problem.replace("-", "_"))
        typed = sorted((words.index(s.name), s) for s in self.settings if s.name in words)
        at, marked = (typed[0][1].value_at, typed[0][1].value) if typed else (self.at, self.name)
        shown = caret(f"{self.name}: {problem}", text, at, len(marked))
        return OptionError(str(shown), problem)


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
        raise reader.error("expected ',' or the end" + reader.advise_braces(items[-1].name))
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
            value = self.take(QUOTED) or self.take(LIST) or self.take(BARE)
            if value is None:
                is_curly = self.text.startswith(tuple(QUOTES), self.at)
                raise self.error(
                    f"expected a value for {key!r}" + '; quotes are straight: "a b"' * is_curly
                )
            self.space()
            if self.text.startswith(",", self.at):
                is_option = NEXT_OPTION.match(self.text, self.at)
                advice = f"a list stands in brackets: {key}=[a,b]"
                advice = "options stand apart by spaces" if is_option else advice
                raise self.error(f"expected a space or '}}'; {advice}")
            yield Setting(key, key_at, value, value_at)

    def advise_braces(self, name: str) -> str:
        """Return advice where what follows a pass looks like its options."""
        if not NO_BRACES.match(self.text, self.at):
            return ""
        return f"; options stand in braces: {name}{{key=value key=value}}"

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
