"""Weights in few bits, scheme by granularity by bits: a table of mAP and size for any checkpoint.

The kind of table that "Quantizing YOLOv7: A Comprehensive Study" (arXiv 2407.04943) prints, weights
only. Calibration images are read once, and the moments of every layer's inputs are gathered once;
all rows share them, so each layer is rounded for itself. `yqc compile --passes int4` does better:
it rounds in graph order, against what is rounded already, with spare bytes where they help most.

    python examples/yolov7_study.py best.pt --data data.yaml
    python examples/yolov7_study.py best.pt --data data.yaml --kinds affine codebook --imgsz 320
"""

import argparse
import copy
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from torch import Tensor, fx, nn

import yqc
from yqc import evaluation as ev
from yqc.data import Data
from yqc.emit import emit, save, weight_bytes
from yqc.errors import DataError
from yqc.graph import Call, calls
from yqc.graph.compare import parameter_count
from yqc.job.inputs import find_data, make_context
from yqc.models.source import Source, open_model
from yqc.progress import Silent
from yqc.quant.weights.scheme import SCHEME_KINDS, Scheme
from yqc.quant.weights.statistics import InputStatistics
from yqc.quantizing.placement import WEIGHTED
from yqc.quantizing.weights.inputs import LayerInputs, affordable_images
from yqc.quantizing.weights.pack import packable_convolutions
from yqc.quantizing.weights.rewrite import replace_by_packed
from yqc.quantizing.weights.rounder import Rounder, RoundingSettings

LayerStatistics = dict[fx.Node, tuple[InputStatistics, Tensor | None]]
"""The statistics of each layer's inputs, and the mean relevance of its output channels."""
GRANULARITIES = ("tensor", "channel", "block", "kernel")
ROUNDINGS = ("nearest", "mse", "gptq", "adaround")


def main() -> None:
    """Print the table."""
    asked = arguments()
    source = open_model(asked.model, imgsz=asked.imgsz and (asked.imgsz, asked.imgsz))
    settings = yqc.Settings(passes="", data=str(asked.data), calib_images=asked.calib_images)
    data = find_data(settings, source)
    ctx = make_context(settings, source, data, Silent())
    if data is None or ctx.calibration is None:
        raise DataError("the study needs calibration images and labelled ones; give --data")
    gm = copy.deepcopy(source.gm)
    yqc.Pipeline.parse("reparam,fold-bn,dce").run(gm, ctx)
    images = list(islice(ctx.calibration(), min(asked.calib_images, affordable_images(gm))))
    convs = packable_convolutions(gm, ctx)
    gathered = gather(LayerInputs(gm, convs, images, source.form, Silent()))
    half = 2 * parameter_count(source.gm)
    print(f"{'scheme':10} {'granularity':11} {'bits':>4} {'rounding':8} {'mAP':>6} {'vs fp16':>8}")
    accuracy, _ = judge(source.gm, source, data)
    print(f"{'float':10} {'':11} {32:4} {'':8} {accuracy:6.4f} {0.5:7.2f}x")
    for bits in asked.bits:
        for kind in asked.kinds:
            for granularity in asked.granularities:
                scheme = Scheme(kind, bits, granularity, asked.block)
                small = row(gm, scheme, asked.rounding, gathered)
                accuracy, size = judge(small, source, data)
                print(
                    f"{kind:10} {granularity:11} {bits:4} {asked.rounding:8} "
                    f"{accuracy:6.4f} {half / size:7.2f}x",
                    flush=True,
                )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="YOLO data YAML or COCO JSON")
    parser.add_argument("--kinds", nargs="+", choices=SCHEME_KINDS, default=list(SCHEME_KINDS))
    parser.add_argument(
        "--granularities", nargs="+", choices=GRANULARITIES, default=list(GRANULARITIES)
    )
    parser.add_argument("--bits", nargs="+", type=int, choices=(2, 3, 4, 5, 6, 8), default=[4, 8])
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--rounding", choices=ROUNDINGS, default="gptq")
    parser.add_argument("--imgsz", type=int, help="pixels of a side; the model's own by default")
    parser.add_argument("--calib-images", type=int, default=64)
    return parser.parse_args()


def gather(inputs: LayerInputs) -> LayerStatistics:
    """Gather the statistics of every convolution's inputs in the float graph."""
    found: LayerStatistics = {}

    def keep(node: fx.Node, _: nn.Conv2d, seen: InputStatistics, relevance: Tensor | None) -> None:
        found[node] = seen, relevance

    inputs.walk(keep, "gathering statistics")
    return found


def row(
    gm: fx.GraphModule, scheme: Scheme, rounding: str, gathered: LayerStatistics
) -> fx.GraphModule:
    """Round all layers by one scheme, and return the graph that holds them packed."""
    small = copy.deepcopy(gm)
    twins = dict(zip(gm.graph.nodes, small.graph.nodes, strict=True))
    convs = [c for c in calls(gm, WEIGHTED) if c.node in gathered]
    plan = dict.fromkeys(gathered, scheme)
    settings = RoundingSettings(rounding=rounding)  # type: ignore[arg-type]  # argparse checked it
    rounder = Rounder(gm, convs, plan, settings, Silent())
    for conv in convs:
        layer = rounder.round_one(conv.node, conv.module, *gathered[conv.node])
        module = small.get_submodule(conv.target)
        twin = Call(twins[conv.node], conv.target, module)
        replace_by_packed(small, twin, layer, rounding)  # type: ignore[arg-type]
    small.recompile()
    yqc.Pipeline.parse("dce").run(small, yqc.Context())
    return small


def judge(gm: fx.GraphModule, source: Source, data: Data) -> tuple[float, int]:
    """Emit a graph; return the file's mAP on the val split, and the bytes of its weights."""
    model = emit(gm)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        found = ev.detect(path, data.val, imgsz=source.imgsz, form=source.form)
    truth = data.val.annotations
    if truth is None:
        raise DataError("the study needs labelled images; give a YAML or a JSON as --data")
    return ev.accuracy(found, truth).map or 0.0, weight_bytes(model)


if __name__ == "__main__":
    main()
