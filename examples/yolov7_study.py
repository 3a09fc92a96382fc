"""Weights in few bits, scheme by granularity by bits: accuracy, bytes and damage of a checkpoint.

The kind of table that "Quantizing YOLOv7: A Comprehensive Study" (arXiv 2407.04943) prints, weights
only, with codes of variable length (rice) beside fixed ones. Calibration images are read once a
seed, and the moments of every layer's inputs are gathered once; all rows share them, so each layer
is rounded for itself. `yqc compile` does better: it rounds in graph order, against what is rounded
already. Rows are judged through float copies of the rounded weights, which run faster; the first
one is checked against its packed file.

    python examples/yolov7_study.py best.pt --data data.yaml
    python examples/yolov7_study.py best.pt --data data.yaml --kinds affine rice --bits 3 4
    python examples/yolov7_study.py best.pt --data data.yaml --cells affine.channel.4 rice.layer.3.5
    python examples/yolov7_study.py best.pt --data data.yaml --out study --repeats 3 --resume

`--out study` writes `study.jsonl` row by row, and `study.json`, `study.csv` and `study.svg`
(accuracy against bytes). `--resume` takes over the rows of a run that was stopped.
"""

import argparse
import copy
import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import islice, product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time

import onnx
from study_plot import draw
from torch import Tensor, fx, nn

import yqc
from yqc import evaluation as ev
from yqc.data import Data
from yqc.emit import emit, save, weight_bytes
from yqc.errors import DataError
from yqc.graph import Call, propagate
from yqc.graph.compare import parameter_count
from yqc.job.inputs import find_data, make_context
from yqc.models.source import open_model
from yqc.progress import Silent
from yqc.quant.weights.scheme import SCHEME_KINDS, Scheme
from yqc.quant.weights.statistics import InputStatistics
from yqc.quantizing.weights.inputs import KnownWeight, LayerInputs, LayerWork, affordable_images
from yqc.quantizing.weights.pack import packable_convolutions
from yqc.quantizing.weights.rewrite import replace_by_packed, replace_by_rice
from yqc.quantizing.weights.rice import RiceRounder
from yqc.quantizing.weights.rounder import Rounder, RoundingSettings

RICE = "rice"
KINDS = (*SCHEME_KINDS, RICE)
SAME = 4e-3
"""Difference of mAP up to which a packed file does what its float copy does: biases of 16 bits and
another order of additions turn few detections around."""
GRANULARITIES = ("tensor", "channel", "block", "kernel")
ROUNDINGS = ("nearest", "mse", "gptq", "adaround")


@dataclass(frozen=True)
class Cell:
    """One way to store weights."""

    kind: str
    granularity: str
    """`layer` for rice: a step a layer, with a factor a channel."""
    bits: float
    """Of a weight's code; for rice in the mean."""

    @classmethod
    def read(cls, text: str) -> "Cell":
        """Read `affine.channel.4` or `rice.layer.3.5`."""
        kind, granularity, bits = text.split(".", 2)
        known = ("layer",) if kind == RICE else GRANULARITIES
        if kind not in KINDS or granularity not in known:
            raise argparse.ArgumentTypeError(f"{text} is no cell such as affine.channel.4")
        return cls(kind, granularity, float(bits))


@dataclass(frozen=True)
class Row:
    """A cell with what it was measured at; its fields are the columns of the files."""

    kind: str
    granularity: str
    bits: float
    rounding: str
    seed: int
    map: float
    """mAP50-95 on the val split."""
    drop: float
    """Relative to the float model's."""
    drop_low: float
    drop_high: float
    """95 % interval of the drop, by paired bootstrap over the images."""
    bytes: int
    """Of all tensors of the packed file."""
    ratio_vs_fp16: float
    damage: float
    """Sum over layers of what rounding does to the detections, by relevance."""
    seconds: float
    """Of processor time for rounding."""


Rounded = dict[fx.Node, tuple[Tensor, "Tensor | None"]]
"""Weight and bias of each convolution, in float."""


class Gathered(LayerInputs):
    """Inputs of convolutions in the float graph, whose statistics are gathered once."""

    @cached_property
    def seen(self) -> dict[fx.Node, tuple[InputStatistics, Tensor | None]]:
        """The statistics of each layer's inputs, and the mean relevance of its output channels."""
        found: dict[fx.Node, tuple[InputStatistics, Tensor | None]] = {}

        def keep(node: fx.Node, _: nn.Conv2d, seen: InputStatistics, r: Tensor | None) -> None:
            found[node] = seen, r

        super().walk(keep, "gathering statistics")
        return found

    def walk(
        self,
        work: LayerWork,
        label: str,
        known: KnownWeight | None = None,
        batches: int | None = None,
        skip: Callable[[fx.Node], bool] = lambda _: False,
    ) -> None:
        """Do some work at every convolution with the statistics that were gathered."""
        del label, known, batches, skip
        for node, statistics in self.seen.items():
            work(node, self.chosen[node].module, *statistics)


class Study:
    """A model with its data, on which cells are measured."""

    def __init__(self, asked: argparse.Namespace) -> None:
        size = asked.imgsz and (asked.imgsz, asked.imgsz)
        self.source = open_model(asked.model, imgsz=size)
        self.asked = asked
        settings = yqc.Settings(passes="", data=str(asked.data), calib_images=asked.calib_images)
        data = find_data(settings, self.source)
        ctx = make_context(settings, self.source, data, Silent())
        if data is None or ctx.calibration is None or data.val.annotations is None:
            raise DataError("the study needs calibration images and labelled ones; give --data")
        self.data: Data = data
        self.gm = copy.deepcopy(self.source.gm)
        yqc.Pipeline.parse("reparam,fold-bn,dce").run(self.gm, ctx)
        count = min(asked.calib_images, affordable_images(self.gm))
        self.images = [image.half() for image in islice(ctx.calibration(), count)]
        self.convs = packable_convolutions(self.gm, ctx)
        self.settings = RoundingSettings(rounding=asked.rounding)
        self.half = 2 * parameter_count(self.source.gm)

    @cached_property
    def judged(self) -> ev.DetectorAccuracy:
        """The float model on the val split."""
        return self.judge(emit(self.source.gm))

    def gather(self, seed: int) -> Gathered:
        """Return the inputs of the layers; samples of them and of outputs follow the seed."""
        form = self.source.form
        return Gathered(self.gm, self.convs, self.images, form, Silent(), seed)

    def measure(self, cell: Cell, inputs: Gathered, seed: int, *, check: bool = False) -> Row:
        """Round all layers as a cell says and judge them.

        With `check`, the packed file is judged, too.

        Raises:
            AssertionError: the packed file finds something else.
        """
        began = process_time()
        rounded, damage, packed = (self.rice if cell.kind == RICE else self.fixed)(cell, inputs)
        seconds = process_time() - began
        accuracy = self.judge(emit(with_weights(self.gm, self.convs, rounded)))
        file = emit(packed)
        if check:
            other = self.judge(file).map or 0.0
            if abs(other - (accuracy.map or 0.0)) > SAME:
                raise AssertionError(f"{cell}: {accuracy.map} in float, {other} by the packed file")
        before, size = self.judged, weight_bytes(file)
        low, high = ev.drop_interval(before.resampled, accuracy.resampled) or (0.0, 0.0)
        found, first = accuracy.map or 0.0, before.map or 0.0
        return Row(
            **vars(cell),
            rounding="rate" if cell.kind == RICE else self.settings.rounding,
            seed=seed,
            map=found,
            drop=1 - found / first if first else 0.0,
            drop_low=low,
            drop_high=high,
            bytes=size,
            ratio_vs_fp16=self.half / size,
            damage=damage,
            seconds=seconds,
        )

    def fixed(self, cell: Cell, inputs: Gathered) -> tuple[Rounded, float, fx.GraphModule]:
        """Round to codes of fixed width; return weights, their damage, and the packed graph."""
        scheme = Scheme(cell.kind, int(cell.bits), cell.granularity, self.asked.block)  # type: ignore[arg-type]  # checked
        plan = dict.fromkeys(inputs.seen, scheme)
        rounder = Rounder(self.gm, self.convs, plan, self.settings, Silent())
        layers = rounder.with_data(inputs)
        small, twins = self.twin()
        for conv in self.convs:
            replace_by_packed(small, twins[conv.node], layers[conv.node], self.settings.rounding)
        weights = {n: (one.rounded.weight, one.bias) for n, one in layers.items()}
        return weights, sum(one.damage or 0.0 for one in layers.values()), finished(small)

    def rice(self, cell: Cell, inputs: Gathered) -> tuple[Rounded, float, fx.GraphModule]:
        """Round to codes of variable length; return as `fixed` does."""
        rounder = RiceRounder(self.gm, self.convs, self.settings, Silent(), inputs)
        rounder.estimate()
        count = sum(conv.module.weight.numel() for conv in self.convs)
        coding = rounder.round(int(cell.bits * count / 8))
        small, twins = self.twin()
        for node, layer in coding.layers.items():
            code = (coding.low[node], coding.planes)
            replace_by_rice(small, twins[node], layer.weight, code, layer.bias, layer.damage)
        weights = {n: (one.weight.weight, one.bias) for n, one in coding.layers.items()}
        return weights, sum(one.damage or 0.0 for one in coding.layers.values()), finished(small)

    def twin(self) -> tuple[fx.GraphModule, dict[fx.Node, Call[nn.Conv2d]]]:
        """Return a copy of the graph, and its convolutions by those of the graph."""
        small = copy.deepcopy(self.gm)
        nodes = dict(zip(self.gm.graph.nodes, small.graph.nodes, strict=True))
        return small, {
            c.node: Call(nodes[c.node], c.target, small.get_submodule(c.target))  # type: ignore[arg-type]
            for c in self.convs
        }

    def judge(self, model: onnx.ModelProto) -> ev.DetectorAccuracy:
        """Measure a file on the val split."""
        with TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            save(model, path)
            source, val = self.source, self.data.val
            found = ev.detect(path, val, imgsz=source.imgsz, form=source.form)
        if val.annotations is None:
            raise DataError("the study needs labelled images")
        return ev.accuracy(found, val.annotations)


def finished(gm: fx.GraphModule) -> fx.GraphModule:
    """Return a graph whose modules were replaced, without what is left of them."""
    gm.recompile()
    yqc.Pipeline.parse("dce").run(gm, yqc.Context())
    propagate(gm)
    return gm


def with_weights(
    gm: fx.GraphModule, convs: Iterable[Call[nn.Conv2d]], rounded: Rounded
) -> fx.GraphModule:
    """Return a copy of a float graph with other weights."""
    trial = copy.deepcopy(gm)
    for conv in convs:
        module, (weight, bias) = trial.get_submodule(conv.target), rounded[conv.node]
        module.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            module.bias = nn.Parameter(bias, requires_grad=False)
    return trial


def main() -> None:
    """Print the table, a row a cell and seed, and write it where that was asked for."""
    asked = arguments()
    cells = asked.cells or list_cells(asked.kinds, asked.granularities, asked.bits)
    log = asked.out.with_suffix(".jsonl") if asked.out else None
    rows = read_rows(log, setup_of(asked)) if log and asked.resume else []
    study = Study(asked)
    if log:
        log.write_text(
            "".join(json.dumps(one) + "\n" for one in [setup_of(asked), *map(asdict, rows)])
        )
    known = {(Cell(r.kind, r.granularity, r.bits), r.seed): r for r in rows}
    print(f"float: mAP {study.judged.map or 0:.4f}, {2 * study.half} bytes")
    names = ("scheme", "granularity", "bits", "mAP", "drop", "95 % interval", "vs fp16")
    print("{:10} {:11} {:>4} {:>6} {:>7} {:>18} {:>8} {:>9} {:>7}".format(*names, "damage", "s"))
    for seed in range(asked.seed, asked.seed + asked.repeats):
        inputs = study.gather(seed)
        for number, cell in enumerate(cells):
            row = known.get((cell, seed))
            if row is None:
                row = study.measure(cell, inputs, seed, check=number == 0 and seed == asked.seed)
                rows.append(row)
                if log:
                    with log.open("a") as file:
                        file.write(json.dumps(asdict(row)) + "\n")
            print(show(row), flush=True)
    if asked.out:
        write_table(asked.out, rows)
        lines: dict[str, list[tuple[int, float]]] = {}
        for row in rows:
            lines.setdefault(f"{row.kind}, {row.granularity}", []).append((row.bytes, row.map))
        plot = draw(lines, study.judged.map or 0.0)
        asked.out.with_suffix(".svg").write_text(plot, encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="YOLO data YAML or COCO JSON")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument(
        "--granularities", nargs="+", choices=GRANULARITIES, default=["channel", "block"]
    )
    parser.add_argument("--bits", nargs="+", type=int, choices=(2, 3, 4, 5, 6, 8), default=[3, 4])
    parser.add_argument("--cells", nargs="+", type=Cell.read, help="single cells: affine.channel.4")
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--rounding", choices=ROUNDINGS, default="gptq", help="of fixed widths")
    parser.add_argument("--imgsz", type=int, help="pixels of a side; the model's own by default")
    parser.add_argument("--calib-images", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=1, help="seeds, from --seed on")
    parser.add_argument("--out", type=Path, help="write OUT.jsonl, OUT.json, OUT.csv, OUT.svg")
    parser.add_argument("--resume", action="store_true", help="take over rows of OUT.jsonl")
    return parser.parse_args()


def list_cells(
    kinds: Sequence[str], granularities: Sequence[str], bits: Sequence[int]
) -> list[Cell]:
    """List the cells of a table, by bits."""
    return [
        Cell(kind, granularity, float(width))
        for width, kind in product(bits, kinds)
        for granularity in (("layer",) if kind == RICE else granularities)
    ]


def show(row: Row) -> str:
    """Return a line of the table."""
    interval = f"[{row.drop_low:+.1%}, {row.drop_high:+.1%}]"
    return (
        f"{row.kind:10} {row.granularity:11} {row.bits:4g} {row.map:6.4f} {row.drop:7.1%} "
        f"{interval:>18} {row.ratio_vs_fp16:7.2f}x {row.damage:9.3g} {row.seconds:7.1f}"
    )


def setup_of(asked: argparse.Namespace) -> dict[str, object]:
    """Return what all rows of a run have in common."""
    names = ("model", "data", "imgsz", "calib_images", "block", "rounding")
    found = {name: getattr(asked, name) for name in names}
    return {k: str(v) if isinstance(v, Path) else v for k, v in found.items()}


def read_rows(path: Path, setup: dict[str, object]) -> list[Row]:
    """Read the whole rows of a run that was stopped.

    Raises:
        SystemExit: that run was one of another setup.
    """
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    whole = [json.loads(line) for line in lines if line.endswith("\n")]
    if whole and whole[0] != setup:
        raise SystemExit(f"{path} is of another study; give another --out, or leave out --resume")
    return [Row(**one) for one in whole[1:]]


def write_table(out: Path, rows: Sequence[Row]) -> None:
    """Write rows as JSON and CSV."""
    out.with_suffix(".json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    with out.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [one.name for one in fields(Row)])
        table.writeheader()
        table.writerows(asdict(row) for row in rows)


if __name__ == "__main__":
    main()
