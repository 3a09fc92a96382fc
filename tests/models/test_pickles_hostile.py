"""Hostile pickles are refused in one sentence; none runs anything or takes its time."""

import contextlib
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.hostile import FILES, forbidden, legacy, named, no_storage, text, zipped
from tests.models.hostile_programs import BROKEN, F4, array, storage, tensor
from yqc.errors import CheckpointError, ForbiddenGlobalError
from yqc.models.pickles.globals import BUILDERS, Gate
from yqc.models.pickles.machine import Machine
from yqc.models.pickles.read import Named, read_checkpoint
from yqc.models.pickles.scan import scan
from yqc.models.pickles.values import Allowance

EVENTS: list[str] = []
WATCHED = ("os.", "subprocess.", "exec", "compile", "pickle.", "socket.", "shutil.", "ctypes.")
watching: list[bool] = []


@pytest.fixture(scope="module", autouse=True)
def _audit(tmp_path_factory: pytest.TempPathFactory) -> None:
    def note(event: str, _: object) -> None:
        if watching and event.startswith(WATCHED):
            EVENTS.append(event)

    path = tmp_path_factory.mktemp("first") / "x.pt"
    for wrap in (zipped, legacy):  # A first run may import a codec, which executes a module.
        path.write_bytes(wrap(b"\x80\2" + storage() + b"."))
        with pytest.raises(CheckpointError):
            read_checkpoint(path, lambda _: False)
    sys.addaudithook(note)


def refuse(path: Path, data: bytes) -> CheckpointError:
    """The refusal of a file; asserts that it came quickly and that nothing was run."""
    path.write_bytes(data)
    before = time.process_time()
    watching.append(True)
    try:
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(path, lambda name: name == "models.common.Conv")
    finally:
        watching.clear()
    assert time.process_time() - before < 5
    assert not EVENTS
    assert sorted(path.parent.iterdir()) == [path]
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).replace("\n", "").isprintable()
    return caught.value


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "x.pt"


CASES = {name: (path, data) for name, path, data in forbidden()}


@pytest.mark.parametrize("name", CASES)
def test_a_forbidden_global_is_named_and_never_called(file: Path, name: str) -> None:
    path, data = CASES[name]
    error = refuse(file, data)
    assert isinstance(error, ForbiddenGlobalError)
    assert ascii(path)[1:-1] in str(error)
    assert "nothing of it was run" in str(error)
    stranger = re.match(r"evil|pip|models|ultralytics|utils|__main__|requests|x\.|a\nb", path)
    assert ("register_block" in str(error)) == (stranger is not None)


def test_there_are_hundreds_of_cases() -> None:
    assert len(CASES) > 230
    assert len(BROKEN) > 70


@pytest.mark.parametrize(
    "program",
    [
        text("os") + b"K\1\x94\x93",
        b"N" + text("system") + b"\x93",
        text("os") + b"(" + text("sys") + b"t0" + text("system") + b"\x93",
        text("os") + text("system") + text("collections") + text("OrderedDict") + b"00\x93",
        b"(" + text("os") + text("system") + b"l0h\0h\1\x93",
    ],
)
def test_a_global_whose_name_is_hidden_is_refused(file: Path, program: bytes) -> None:
    error = refuse(file, zipped(b"\x80\x04" + program + b")R."))
    assert isinstance(error, ForbiddenGlobalError)
    assert "hides the name of a class or function" in str(error)


@pytest.mark.parametrize("form", ["zip", "legacy"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_program_is_refused(file: Path, name: str, form: str) -> None:
    why, program = BROKEN[name]
    program = b"\x80\4" + program + b"."
    pack = zipped if form == "zip" else legacy if b"cpu" in program else no_storage
    error = refuse(file, pack(program))
    assert not isinstance(error, ForbiddenGlobalError)
    assert re.search(why, str(error))
    assert "\n" not in str(error)


@pytest.mark.parametrize("program", [b"\x80\0N.", b"\x80\1N.", b"\x80\6N.", b"N.", b"\x80\4N"])
def test_another_protocol_or_no_end_is_refused(file: Path, program: bytes) -> None:
    refuse(file, zipped(program))


@pytest.mark.parametrize("wrap", [zipped, legacy])
def test_the_parts_of_those_programs_are_sound(file: Path, wrap: Callable[[bytes], bytes]) -> None:
    file.write_bytes(wrap(b"\x80\2" + tensor() + array(F4, b"K\1\x85", text("abcd")) + b"\x86."))
    got = read_checkpoint(file, lambda _: False)
    assert (got[0].tolist(), got[1].tobytes()) == ([0, 0, 0, 0], b"abcd")


def test_the_machine_has_a_gate_of_its_own() -> None:
    def refuse_storages(_: object) -> Named:
        raise AssertionError

    machine = Machine(Gate("x.pt", lambda _: False), refuse_storages, Allowance())
    for program in (named("os.system"), text("os") + text("system") + b"\x93"):
        with pytest.raises(ForbiddenGlobalError, match=r"os\.system"):
            machine.run(scan(b"\x80\4" + program + b".").sound())


PIECES = [
    *(
        bytes([code])
        for code in b"NI()]}\x88\x89\x8f\x85\x86\x87tae sub\x90\x91R\x81\x92Q0122\x94\x93"
    ),
    *(b"K" + bytes([number]) for number in (0, 1, 4, 255)),
    *(b"q" + bytes([index]) for index in range(3)),
    *(b"h" + bytes([index]) for index in range(3)),
    *(text(value) for value in ("", "0", "storage", "f4", "latin1", "a\u00e9", "x")),
    *(named(path) for path in BUILDERS),
    *(named(path) for path in ("torch.FloatStorage", "numpy.dtype", "numpy.ndarray", "torch.half")),
    *(storage(), tensor(), array(F4, b"K\1\x85", text("abcd"))),
]


@settings(max_examples=400, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES), max_size=25), form=st.sampled_from(list(FILES)))
def test_any_program_of_allowed_names_gives_data_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], form: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "program.pt"
    path.write_bytes(FILES[form](b"\x80\4" + b"".join(pieces) + b"."))
    with contextlib.suppress(CheckpointError):
        repr(read_checkpoint(path, lambda _: False))
