"""Options text: what is printed parses back, and every mistake has its place pointed at."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from yqc import Context, Pass
from yqc.errors import OptionError, PipelineError, near
from yqc.pipeline import Bounds, ByteSize, Count, Duration, Share
from yqc.pipeline.grammar import Item, Setting, split
from yqc.pipeline.options import Option, build_options, format_item, list_options


@dataclass(frozen=True)
class Every:
    """A field of every type that options may have."""

    name: ClassVar[str] = "every"

    count: int = 3
    """How many.

    And more of it.
    """
    ratio: float = 0.5
    dry: bool = False
    """Only say what would be done."""
    word: str = "plain"
    mode: Literal["minmax", "mse"] = "mse"
    """How ranges are chosen."""
    bits: Literal[4, 8] = 8
    keep: tuple[str, ...] = ()
    """Patterns of modules to leave alone."""
    sizes: tuple[int, ...] = (1, 2)
    limit: int | None = None
    note: str | None = None
    scale: Literal["auto"] | float = "auto"
    made: tuple[float, ...] = field(default_factory=lambda: (0.5,))
    part: Annotated[float | None, Share, Bounds(above=0, below=1)] = None
    size: Annotated[int, ByteSize] = 0
    wait: Annotated[float, Duration] = field(default=Duration(60))
    least: Count = 1


@dataclass(frozen=True)
class Needy:
    name: ClassVar[str] = "needy"

    ratio: float
    """What to keep."""

    def __post_init__(self) -> None:
        if not 0 < self.ratio < 1:
            raise ValueError("ratio must lie between 0 and 1")


def parse(text: str) -> Every:
    (item,) = split(text)
    return build_options(Every, item, text)


def message(text: str, cls: type = Every) -> list[str]:
    (item,) = split(text)
    with pytest.raises(PipelineError) as caught:
        build_options(cls, item, text)
    return str(caught.value).splitlines()


# Reading


def test_splits_a_pipeline_into_items_with_their_places() -> None:
    assert split(' prune{ratio=0.3 keep="a b"}, int8 ') == [
        Item("prune", 1, (Setting("ratio", 7, "0.3", 13), Setting("keep", 17, '"a b"', 22))),
        Item("int8", 30, ()),
    ]


def test_reads_every_type() -> None:
    text = (
        'every{count=-7 ratio=1e-3 dry=True word="two words" mode=minmax bits=4 '
        "keep=[model.22*, model.9*] sizes=5 limit=none note=some scale=2.5 made=1|2 "
        "part=30% size=1.2MB wait=2m least=4}"
    )
    assert parse(text) == Every(
        count=-7,
        ratio=0.001,
        dry=True,
        word="two words",
        mode="minmax",
        bits=4,
        keep=("model.22*", "model.9*"),
        sizes=(5,),
        limit=None,
        note="some",
        scale=2.5,
        made=(1.0, 2.0),
        part=0.3,
        size=1_200_000,
        wait=120,
        least=4,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a,b]", ("a", "b")),
        ("[ a , b ]", ("a", "b")),
        ("[a]", ("a",)),
        ("a", ("a",)),
        ("[]", ()),
        ('""', ()),
        ('[""]', ("",)),
        ("a|b", ("a", "b")),
        ('"a|b c"', ("a", "b c")),
        ('["a|b",c]', ("a|b", "c")),
        ("model.[0-3]*", ("model.[0-3]*",)),
        ("[model.[0-3]*,b]", ("model.[0-3]*", "b")),
        ("[ab]*", ("[ab]*",)),
        ('["a,b","c]"]', ("a,b", "c]")),
    ],
)
def test_reads_lists(text: str, words: tuple[str, ...]) -> None:
    assert parse(f"every{{keep={text} count=7}}") == Every(keep=words, count=7)


@pytest.mark.parametrize(
    "text", ["every", "every{}", "every{ }", " every ", "every{ count = 3 }", "every{count=3}"]
)
def test_space_and_braces_do_not_matter(text: str) -> None:
    assert parse(text) == Every()


def test_hyphens_and_underscores_are_one() -> None:
    @dataclass(frozen=True)
    class Long:
        min_var: float = 0.0

    for text in "x{min-var=1}", "x{min_var=1}":
        assert build_options(Long, split(text)[0], text) == Long(1.0)


def test_none_is_a_value_and_a_word() -> None:
    assert parse("every{note=none}").note is None
    assert parse('every{note="none"}').note == "none"
    assert parse("every{word=none}").word == "none"
    assert format_item("every", Every(note="none")) == 'every{note="none"}'


# There and back

WORDS = st.text(max_size=12)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
EVERY = st.builds(
    Every,
    count=st.integers(),
    ratio=FINITE,
    dry=st.booleans(),
    word=WORDS,
    mode=st.sampled_from(["minmax", "mse"]),
    bits=st.sampled_from([4, 8]),
    keep=st.lists(WORDS, max_size=4).map(tuple),
    sizes=st.lists(st.integers(), max_size=4).map(tuple),
    limit=st.none() | st.integers(),
    note=st.none() | WORDS,
    scale=st.just("auto") | FINITE,
    made=st.lists(FINITE, max_size=3).map(tuple),
    part=st.none() | st.floats(0, 1, exclude_min=True, exclude_max=True).map(Share),
    size=st.integers(0).map(ByteSize) | st.integers(0, 99).map(lambda n: ByteSize(n * 1000)),
    wait=st.floats(0, 1e9).map(Duration),
    least=st.integers(1),
)


@given(EVERY)
@example(Every(keep=('"', '"a"')))
def test_what_is_printed_parses_back(options: Every) -> None:
    printed = format_item("every", options)
    assert parse(printed) == options
    assert format_item("every", parse(printed)) == printed


def test_prints_only_what_differs_from_the_defaults() -> None:
    assert format_item("every", Every()) == "every"
    assert format_item("every", Every(dry=True, keep=("a", "b"), made=(1.0,))) == (
        "every{dry=true keep=[a,b] made=1.0}"
    )
    assert format_item("every", Every(word='a "b" \\', ratio=1e-7)) == (
        'every{ratio=1e-07 word="a \\"b\\" \\\\"}'
    )


@given(st.text(alphabet='ab-_1 {}="|\\,.\n', max_size=20))
def test_any_text_is_read_or_refused_in_order(text: str) -> None:
    try:
        items = split(text)
    except PipelineError as error:
        _, line, mark = str(error).splitlines()
        assert len(mark.rstrip()) <= len(line) + 1
    else:
        assert all(text[item.at :].startswith(item.name) for item in items)


# Refusing

BRACES = "options stand in braces: a{key=value key=value}"
STRAIGHT = 'quotes are straight: "a b"'


@pytest.mark.parametrize(
    ("text", "what", "at"),
    [
        ("", "expected the name of a pass", 0),
        ("8bit", "expected the name of a pass", 0),
        ("a,", "expected the name of a pass", 2),
        ("a, {x=1}", "expected the name of a pass", 3),
        ("a b", "expected ',' or the end", 2),
        ("a}", "expected ',' or the end", 1),
        ("a{x=1}}", "expected ',' or the end", 6),
        ("a{", "expected '}'", 2),
        ("a{x=1", "expected '}'", 5),
        ("a{=1}", "expected an option, key=value, or '}'", 2),
        ("a{x}", "expected '=' and a value after 'x'", 3),
        ("a{x 1}", "expected '=' and a value after 'x'", 4),
        ("a{x=}", "expected a value for 'x'", 4),
        ('a{x="b}', "expected a value for 'x'", 4),
        ("a,\n\tb c", "expected ',' or the end", 6),
        ("a{x:1}", "expected '=' and a value after 'x'", 3),
        ("a(x=1)", f"expected ',' or the end; {BRACES}", 1),
        ("a[x=1]", f"expected ',' or the end; {BRACES}", 1),
        ("b,a x=1", f"expected ',' or the end; {BRACES}", 4),
        ("a:x=1", f"expected ',' or the end; {BRACES}", 1),
        ("a{x=1,y=2}", "expected a space or '}'; options stand apart by spaces", 5),
        ("a{x=1 , y=2}", "expected a space or '}'; options stand apart by spaces", 6),
        ("a{x=b,c}", "expected a space or '}'; a list stands in brackets: x=[a,b]", 5),
        ("a{x=[b,c}", "expected a space or '}'; a list stands in brackets: x=[a,b]", 6),
        ("a{x=\u201cb\u201d}", f"expected a value for 'x'; {STRAIGHT}", 4),
        ("a{x='b c'}", f"expected a value for 'x'; {STRAIGHT}", 4),
    ],
)
def test_points_at_what_breaks_the_grammar(text: str, what: str, at: int) -> None:
    flat = text.replace("\n", " ").replace("\t", " ")
    with pytest.raises(PipelineError) as caught:
        split(text)
    assert str(caught.value) == f"{what}\n  {flat}\n  {' ' * at}^"


@pytest.mark.parametrize(
    ("options", "what", "marked"),
    [
        ("count=2.5", "every: count must be a whole number, not 2.5", "2.5"),
        ("ratio=half", "every: ratio must be a number, not half", "half"),
        ("ratio=inf", "every: ratio must be a finite number, not inf", "inf"),
        ("ratio=nan", "every: ratio must be a finite number, not nan", "nan"),
        ("dry=yes", "every: dry must be true or false, not yes", "yes"),
        ("mode=max", "every: mode must be one of minmax, mse, not max", "max"),
        ("bits=5", "every: bits must be one of 4, 8, not 5", "5"),
        ("sizes=1|two", "every: sizes must be a whole number, not 1|two", "1|two"),
        ("limit=few", "every: limit must be a whole number or none, not few", "few"),
        ("scale=big", "every: scale must be one of auto or a number, not big", "big"),
        ('word="\\d"', "every: word must be a text in which quotes are written", '"\\d"'),
        ("ratio=50%", "every: ratio must be a number, not 50%", "50%"),
        ("count=1KB", "every: count must be a whole number, not 1KB", "1KB"),
        ("count=1_000", "every: count must be a whole number, not 1_000", "1_000"),
        (
            "part=30",
            "every: part must be above 0 and below 1, not 30; did you mean 30% or 0.3?",
            "30",
        ),
        ("part=200", "every: part must be above 0 and below 1, not 200", "200"),
        ("part=10m", "every: part must be a share such as 1% or 0.01 or none, not 10m", "10m"),
        ("size=5%", "every: size must be a number of bytes such as 950KB, ", "5%"),
        ("size=-1", "every: size must be a number of bytes such as 950KB, ", "-1"),
        ("wait=5KB", "every: wait must be a time such as 90s, 10m or 1.5h, not 5KB", "5KB"),
        ("least=0", "every: least must be 1 or above, not 0", "0"),
        ("sizes=[1,two]", "every: sizes must be a whole number, not [1,two]", "[1,two]"),
        ("keep=[a,]", "every: keep must be a list such as [a,b], not [a,]", "[a,]"),
        ("mood=mse", "every has no option 'mood'; did you mean 'mode'?", "mood"),
        ("zzz=1", "every has no option 'zzz'; it has: count, ratio, dry, word, ", "zzz"),
        ("name=x", "every has no option 'name'; did you mean", "name"),
        ("dry=true dry=true", "'dry' is given twice", "dry"),
    ],
)
def test_points_at_the_option_that_does_not_fit(options: str, what: str, marked: str) -> None:
    text = f"every{{{options}}}"
    first, line, mark = message(text)
    assert first.startswith(what)
    assert line == f"  {text}"
    assert line[mark.index("^") : mark.rindex("^") + 1] == marked
    if "twice" in what:
        assert mark.index("^") == line.rindex("dry")


def test_what_the_pass_itself_refuses_points_at_the_value() -> None:
    assert message("needy{ratio=2}", Needy) == [
        "needy: ratio must lie between 0 and 1",
        "  needy{ratio=2}",
        "              ^",
    ]


def test_what_only_a_default_breaks_points_at_the_name() -> None:
    @dataclass(frozen=True)
    class Both(Every):
        def __post_init__(self) -> None:
            if self.count > self.least:
                raise ValueError("count must be at most least")

    assert message("both{dry=true}", Both)[-1] == "  ^^^^"
    assert message("both{dry=true least=2}", Both)[-1] == "                      ^"
    assert message("both{least=2 count=3}", Both)[-1] == "                     ^"


@dataclass(frozen=True)
class Given(Every, Pass):
    """The same options in a pass, which checks them."""

    def run(self, gm: object, ctx: Context) -> None:
        """Do nothing."""


def test_values_in_python_become_those_of_the_text() -> None:
    made: dict[str, Any] = {
        "keep": ["a", "b"],
        "ratio": 1,
        "part": 0.3,
        "wait": 90,
        "size": 950_000,
    }
    given = Given(**made)
    assert given.keep == ("a", "b")
    assert str(given) == "every{ratio=1.0 keep=[a,b] part=0.3 size=950KB wait=90s}"
    assert Given(wait="90s", size="950KB", part="30%", keep=["a", "b"], ratio=1) == given  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("option", "value", "must"),
    [
        ("part", 30, "above 0 and below 1, not 30; did you mean 30% or 0.3?"),
        ("part", "x", "a share such as 1% or 0.01 or none, not 'x'"),
        ("part", True, "a share such as 1% or 0.01 or none, not True"),
        ("count", 1.5, "a whole number, not 1.5"),
        ("count", "3", "a whole number, not '3'"),
        ("ratio", float("nan"), "a number, not nan"),
        ("dry", 1, "true or false, not 1"),
        ("word", 1, "a text, not 1"),
        ("mode", "max", "one of minmax, mse, not 'max'"),
        ("keep", "a", "a list, not 'a'"),
        ("keep", [1], "a text, not [1]"),
        ("least", 0, "1 or above, not 0"),
        ("scale", "big", "one of auto or a number, not 'big'"),
    ],
)
def test_a_wrong_value_in_python_names_the_argument(option: str, value: object, must: str) -> None:
    arguments: dict[str, Any] = {option: value}
    with pytest.raises(OptionError) as caught:
        Given(**arguments)
    assert str(caught.value) == f"every: {option} must be {must}"


def test_types_that_only_a_pass_knows_are_left_alone() -> None:
    @dataclass(frozen=True)
    class Own(Given):
        table: dict[str, int] = field(default_factory=dict)

    assert Own(table={"a": 1}).table == {"a": 1}


def test_an_option_without_a_default_must_be_given() -> None:
    assert message("needy", Needy) == [
        "needy needs a value for its option 'ratio'",
        "  needy",
        "  ^^^^^",
    ]
    assert format_item("needy", Needy(0.5)) == "needy{ratio=0.5}"
    assert list_options(Needy) == [Option("ratio", "float", "required", "What to keep.")]


def test_a_pass_without_options_says_so() -> None:
    @dataclass(frozen=True)
    class Bare:
        pass

    assert message("bare{x=1}", Bare)[0] == "bare has no option 'x'; it has: no options"


def test_suggests_only_what_is_near() -> None:
    assert near("prun", ["prune", "dce"]) == "; did you mean 'prune'?"
    assert near("xyz", ["prune", "dce"]) == ""


# Describing


def test_describes_options_by_type_default_and_docstring() -> None:
    assert list_options(Every) == [
        Option("count", "int", "3", "How many. And more of it."),
        Option("ratio", "float", "0.5", ""),
        Option("dry", "bool", "false", "Only say what would be done."),
        Option("word", "text", "plain", ""),
        Option("mode", "minmax|mse", "mse", "How ranges are chosen."),
        Option("bits", "4|8", "8", ""),
        Option("keep", "[text,...]", "[]", "Patterns of modules to leave alone."),
        Option("sizes", "[int,...]", "[1,2]", ""),
        Option("limit", "int or none", "none", ""),
        Option("note", "text or none", "none", ""),
        Option("scale", "auto or float", "auto", ""),
        Option("made", "[float,...]", "0.5", ""),
        Option("part", "share or none", "none", ""),
        Option("size", "bytes", "0", ""),
        Option("wait", "time", "1m", ""),
        Option("least", "int", "1", ""),
    ]


def test_describes_inherited_options_too() -> None:
    @dataclass(frozen=True)
    class More(Every):
        extra: int = 0
        """One more."""

    found = {o.name: o for o in list_options(More)}
    assert found["extra"].doc == "One more."
    assert found["mode"].doc == "How ranges are chosen."


# Times


PAUSE = Duration(90)


@dataclass(frozen=True)
class Timed:
    name: ClassVar[str] = "timed"

    time: Duration | None = None
    pause: Duration = PAUSE


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("90", 90, "90s"),
        ("90s", 90, "90s"),
        ("10m", 600, "10m"),
        ("1.5h", 5400, "90m"),
        ("2h", 7200, "2h"),
        ("0", 0, "0s"),
        (".5m", 30, "30s"),
        ("0.25s", 0.25, "0.25s"),
    ],
)
def test_times_are_read_and_printed(text: str, seconds: float, shown: str) -> None:
    (item,) = split(f"timed{{time={text}}}")
    timed = build_options(Timed, item, text)
    assert timed.time == seconds
    assert str(timed.time) == shown
    assert format_item("timed", timed) == f"timed{{time={shown}}}"
    assert build_options(Timed, split(format_item("timed", timed))[0], "") == timed


@pytest.mark.parametrize("text", ["soon", "-5m", "5 m", "1e3", "inf", "5d", "m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(PipelineError, match=r"must be a time such as 90s, 10m or 1\.5h"):
        build_options(
            Timed, Item("timed", 0, (Setting("pause", 0, text, 0),)), f"timed{{pause={text}}}"
        )


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("950KB", 950_000, "950KB"),
        ("1.2MB", 1_200_000, "1200KB"),
        ("1000", 1000, "1KB"),
        ("17b", 17, "17"),
        ("2kib", 2048, "2048"),
        ("1GB", 10**9, "1GB"),
        ("0", 0, "0"),
    ],
)
def test_bytes_are_read_and_printed(text: str, size: int, shown: str) -> None:
    assert (ByteSize.read(text), str(ByteSize(size))) == (size, shown)


@pytest.mark.parametrize(
    ("text", "share"), [("1%", 0.01), ("0.01", 0.01), ("1.5%", 0.015), ("100%", 1), (".5", 0.5)]
)
def test_shares_are_read(text: str, share: float) -> None:
    assert Share.read(text) == share


def test_bounds_are_put_into_words() -> None:
    assert str(Bounds(least=1)) == "1 or above"
    assert str(Bounds(least=0, most=1)) == "between 0 and 1"
    assert str(Bounds(above=0, most=1)) == "above 0 and at most 1"
    assert str(Bounds(least=0, below=1)) == "0 or above and below 1"
    assert str(Bounds(above=0)) == "above 0"


def test_help_names_a_time_and_its_default() -> None:
    assert [(o.type, o.default) for o in list_options(Timed)] == [
        ("time or none", "none"),
        ("time", "90s"),
    ]
