"""What users register by name: listed, found by its option, used, and recorded with its hash."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import yqc
from yqc import Context
from yqc.commands.listing import describe_pass, listings
from yqc.errors import PassError, PipelineError
from yqc.job.keys import hash_code, hash_target
from yqc.pipeline.registry import Registry
from yqc.quant import Observer, Scheme
from yqc.quant.weights.scheme import make_table
from yqc.quantizing import read_plan_line
from yqc.registered import CRITERIA, RANGES, SETS
from yqc.settings import SettingError, Settings, read_recipe
from yqc.testing import apply, calibrated, nets, traced

SOURCE = '''
from dataclasses import replace

import torch
import yqc

@yqc.register_criterion("spread")
def spread(layer):
    return layer.rows.std(1)

@yqc.register_criterion("slope", needs_images=True)
def slope(layer):
    pairs = zip(layer.outputs(), layer.gradients(), strict=True)
    return sum((y * g).sum((0, 2, 3)).abs() for y, g in pairs)

@yqc.register_range("half")
def half(histogram, *, relevance, symmetric):
    return min(histogram.smallest, 0.0) / 2, max(histogram.largest, 0.0) / 2

@yqc.register_observer("second")
class Second:
    """The second largest value of each image."""

    def __init__(self):
        self.high = 0.0

    def add(self, values):
        self.high = max(self.high, float(values.flatten().sort().values[-2]))

    def range(self):
        return -1.0, self.high

@yqc.register_scheme("normal")
def normal(weights, bits):
    at = (torch.arange(1 << bits) + 0.5) / (1 << bits)
    return torch.erfinv(2 * at - 1)

yqc.register_target(replace(yqc.find_target("portable"), name="acme-npu", summary="of acme"))
'''


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A file that registers one of each, which is forgotten afterwards."""
    before = [dict(names._added) for names in SETS]
    path = tmp_path / "acme.py"
    path.write_text(SOURCE)
    yield path
    for names, old in zip(SETS, before, strict=True):
        names._added.clear()
        names._added.update(old)


@pytest.fixture
def registry(file: Path) -> Registry:
    registry = Registry.default()
    registry.load_file(file)
    return registry


def net() -> nn.Module:
    return nets.chain(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))


def test_names_are_listed_under_the_options_that_take_them(registry: Registry, file: Path) -> None:
    listed = {one.name: one.added for one in listings(registry).passes}
    assert [(a.option, a.name, a.origin) for a in listed["prune"]] == [
        ("criterion", "slope", str(file)),
        ("criterion", "spread", str(file)),
    ]
    assert {a.name for a in listed["int8"]} == {"half", "second"}
    assert [a.name for a in listed["cluster"]] == ["normal"]
    assert not listed["fold-bn"]
    assert [a.name for a in listings(registry).targets] == ["acme-npu"]
    options = {one.name: one for one in describe_pass(registry, "calibrate").options}
    assert options["ranges"].type == "minmax|percentile|mse|entropy|relevance|half"
    assert [a.origin for a in options["observer"].added] == [str(file)]
    assert "    criterion=spread" in str(listings(registry))


def test_a_near_miss_is_named_and_no_name_is_taken_twice(registry: Registry, file: Path) -> None:
    with pytest.raises(PipelineError, match=r"not spraed; did you mean 'spread'\?"):
        yqc.Pipeline.parse("prune{criterion=spraed}", registry)
    with pytest.raises(SettingError, match="did you mean 'acme-npu'"):
        Settings(target="acme_npu")
    registry.load_file(file)  # the same file again
    with pytest.raises(PipelineError, match=rf"two criteria are named 'spread': one from {file}"):
        yqc.register_criterion("spread")(lambda layer: layer.rows)
    with pytest.raises(PipelineError, match="'mse' is one of yqc's own range methods"):
        yqc.register_range("mse")(lambda _: (0.0, 1.0))
    with pytest.raises(PipelineError, match="'My one' cannot name observers"):
        yqc.register_observer("My one")(object)  # type: ignore[type-var]


def test_a_criterion_decides_what_is_removed(registry: Registry) -> None:
    kept = []
    for criterion in ("spread", "slope"):
        pruned = traced(net(), (1, 3, 12, 12))
        text = f"channel-prune{{ratio=0.3 criterion={criterion} round_to=1}}"
        apply(yqc.Pipeline.parse(text, registry).steps[0], pruned, calibrated(pruned))  # type: ignore[arg-type]
        kept.append(first_conv(pruned).out_channels)
    assert max(kept) < 8
    with pytest.raises(PassError, match="criterion=slope needs images"):
        apply("channel-prune{ratio=0.3 criterion=slope}", traced(net(), (1, 3, 12, 12)))


def first_conv(gm: torch.fx.GraphModule) -> nn.Conv2d:
    return next(m for m in gm.modules() if isinstance(m, nn.Conv2d))


@pytest.mark.usefixtures("file")
def test_a_criterion_that_returns_no_scores_is_refused() -> None:
    yqc.register_criterion("wrong")(lambda layer: layer.rows)
    with pytest.raises(PassError, match=r"criterion 'wrong' of .* must return 8 finite scores"):
        apply("channel-prune{ratio=0.3 criterion=wrong}", traced(net(), (1, 3, 12, 12)))


def ranges(gm: torch.fx.GraphModule) -> list[float]:
    return [float(m.scale) for m in gm.modules() if isinstance(m, Observer)]


def calibrate(options: str) -> list[float]:
    gm = traced(net(), (1, 3, 12, 12))
    apply(f"fold-bn,observe,calibrate{{{options}}}", gm, calibrated(gm))
    return ranges(gm)


def test_a_range_method_and_an_observer_choose_ranges(registry: Registry) -> None:
    whole, half, second = map(calibrate, ("ranges=minmax", "ranges=half", "observer=second"))
    assert half[-1] == pytest.approx(whole[-1] / 2, rel=1e-3)
    assert second[-1] not in {whole[-1], half[-1]}
    expanded = yqc.Pipeline.parse("int8{observer=second}", registry).expand()
    assert "calibrate{observer=second}" in map(str, expanded)
    yqc.register_range("wrong")(lambda *_, **__: (1.0, 2.0))
    with pytest.raises(PassError, match=r"range method 'wrong' of .* low <= 0 <= high"):
        calibrate("ranges=wrong")


@pytest.mark.usefixtures("registry")
def test_a_scheme_gives_the_values_of_weights() -> None:
    gm = traced(net(), (1, 3, 12, 12))
    apply("fold-bn,cluster{table=normal spare=0}", gm, calibrated(gm))
    table = make_table("normal", torch.ones(2, 2), 4)
    assert table.shape == (1, 16)
    assert float(table.max()) == 1
    stored = [b for b in gm.state_dict().values() if b.numel() == 16]
    assert any(torch.allclose(b.float().flatten(), table.flatten(), atol=1e-3) for b in stored)
    line = "a.conv:normal.4.channel"
    assert read_plan_line(line) == ("a.conv", Scheme("normal", 4))
    yqc.register_scheme("short")(lambda *_: torch.ones(3))
    with pytest.raises(PassError, match="must return 16 finite values, not 3"):
        make_table("short", torch.ones(2, 2), 4)


def test_hashes_of_what_registered_them_decide_results(registry: Registry) -> None:
    (action,) = yqc.Pipeline.parse("calibrate{ranges=half}", registry).steps
    (plain,) = yqc.Pipeline.parse("calibrate", registry).steps
    found = CRITERIA.find("spread")
    assert found is not None
    assert hash_code([action]) - hash_code([plain]) == {f"range method half {found.sha256}"}  # type: ignore[list-item]
    assert (hash_target("acme-npu"), hash_target("openvino")) == (found.sha256, "")


def test_report_and_recipe_name_the_file_and_its_hash(
    registry: Registry, file: Path, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"imgsz": 16, "html": False, "evaluate": False, "registry": registry}
    passes = "prune{criterion=spread ratio=0.2}"
    result = yqc.compile(net(), passes, target="acme-npu", output=tmp_path / "x.onnx", **how)
    found = RANGES.find("half")
    assert found is not None
    used = [(p.kind, p.name, p.file, p.sha256) for p in result.report.plugins]
    assert used == [
        ("criterion", "spread", str(file), found.sha256),
        ("target", "acme-npu", str(file), found.sha256),
    ]
    origin = read_recipe(result.files.recipe).written_for
    assert [(p.kind, p.name, p.sha256) for p in origin.plugins] == [
        (u[0], u[1], u[3]) for u in used
    ]
    assert origin.advise() == f"; it needs --load {file}"
    assert not origin.advise([found.sha256])


def install(site: Path, code: str) -> None:
    """Install a package with a criterion that registers nothing itself."""
    (site / "acme_criteria.py").write_text(code)
    info = site / "acme_criteria-3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-criteria\nVersion: 3.0\n")
    (info / "entry_points.txt").write_text("[yqc.criteria]\nfar = acme_criteria:far\n")


@pytest.mark.usefixtures("file")
def test_entry_points_are_imported_when_they_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    install(site, "def far(layer):\n    return layer.rows.abs().amax(1)\n")
    monkeypatch.syspath_prepend(site)
    listed = {one.name: one.added for one in listings(Registry.default()).passes}
    assert [(a.name, a.origin) for a in listed["prune"]] == [("far", "acme-criteria 3.0")]
    gm = traced(net(), (1, 3, 12, 12))
    apply("channel-prune{ratio=0.3 criterion=far round_to=1}", gm, calibrated(gm))
    assert first_conv(gm).out_channels < 8
    found = CRITERIA.find("far")
    assert found is not None
    assert (found.origin, found.module) == ("acme-criteria 3.0", "acme_criteria")
    assert Context().rules.name == "onnxruntime"
