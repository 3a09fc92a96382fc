"""The commands as Python functions: what they return prints as the commands' tables.

A model is a path, a module, or what `yqc.load` returned. Settings are named as the options of the
command line are, with underscores.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from yqc import evaluation as ev
from yqc import report as rp
from yqc.comparing import Comparison
from yqc.compiler import Session
from yqc.evaluation.latency import WARM_UP
from yqc.evaluation.profile import profile
from yqc.job.explain import explain as explain_pass
from yqc.job.files import evaluate_file, input_channels, open_pictures, time_files
from yqc.job.inputs import open_source
from yqc.job.staged import find_file, look, staged
from yqc.linting import LintResult, find_runtime
from yqc.linting import lint as find_faults
from yqc.look import Diff, Explanation, NodeView, OnnxSummary, View, compare_views
from yqc.look.summary import summarize
from yqc.models.source import AnyModel
from yqc.onnx_file import read_onnx
from yqc.pipeline.registry import Registry
from yqc.progress import Progress, Silent
from yqc.settings import (
    DATA,
    MODEL,
    SETTINGS,
    Budget,
    SettingError,
    Settings,
    choose,
    with_choices,
)
from yqc.sweeping import plan_sweep, read_plan
from yqc.sweeping import sweep as run_sweep
from yqc.sweeping.timing import take_on
from yqc.tuning import Front, SearchSpace, make_question, read_time, training_steps
from yqc.workers import LocalWorkers, RayWorkers, choose_jobs, join_cluster


@with_choices(*MODEL, *DATA, "threads")
def evaluate(
    model: AnyModel,
    data: str | Path | None = None,
    *,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **choices: Any,  # noqa: ANN401  # checked by Settings
) -> rp.EvalResult:
    """Measure the COCO mAP of an ONNX file, or of any model, on the val split of `data`.

    Raises:
        YqcError: the model or the data cannot be used.
    """
    settings = choose(settings, choices | ({} if data is None else {"data": data}))
    return evaluate_file(model, settings, progress=progress or Silent())


def bench(
    models: str | Path | Sequence[str | Path],
    *,
    imgsz: int | tuple[int, int] | None = None,
    threads: int = 1,
    runs: int | None = None,
    warmup: int = WARM_UP,
    nodes: bool = False,
    runtime: ev.Runtime = "onnxruntime",
    precision: ev.Precision | None = None,
    end_to_end: bool = False,
    data: str | Path | None = None,
    images: str | Path | None = None,
    progress: Progress | None = None,
) -> rp.Bench:
    """Time ONNX files under one runtime in turn; ratios are to the first.

    Args:
        models: the files, or one.
        imgsz: height and width, for files that fix none.
        threads: of the runtime.
        runs: timed rounds; by default until the ratios are known to 2 %.
        warmup: rounds before them.
        nodes: whether to time each node, too.
        runtime: what runs them.
        precision: `f32` keeps OpenVINO from bfloat16.
        end_to_end: whether letterbox, decoding and NMS count.
        data: the images to time end to end.
        images: folder of the images that a COCO JSON names.
        progress: where the rounds are shown.

    Raises:
        YqcError: a file cannot be run, or the runtime is not installed.
    """
    read = choose(None, {"imgsz": imgsz, "threads": threads, "data": data, "images": images})
    paths = [Path(one) for one in ([models] if isinstance(models, str | Path) else models)]
    how: dict[str, Any] = {"imgsz": read.imgsz, "threads": threads, "runs": runs}
    how |= {"runtime": runtime, "precision": precision}
    pictures: Sequence[Any] = ()
    if end_to_end:
        folders = (None if one is None else Path(one) for one in (read.data, read.images))
        pictures = open_pictures(*folders, channels=input_channels(paths[0]))
    progress = progress or Silent()
    found = time_files(paths, **how, warm_up=warmup, pictures=pictures, progress=progress)
    if not nodes:
        return found
    return replace(found, nodes={str(path): profile(path, **how) for path in paths})


@with_choices(*SETTINGS)
def tune(
    model: AnyModel,
    data: str | Path | None = None,
    *,
    budget: Budget | None = None,
    output: str | Path = "tuned",
    time: float | str | None = None,
    trials: int | None = None,
    prefer: Literal["size", "speed"] | None = None,
    jobs: int | None = None,
    threads_per_trial: int = 1,
    ray: str | None = None,
    latency: bool = True,
    measure: str | None = None,
    space: Path | None = None,
    resume: bool = False,
    registry: Registry | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **choices: Any,  # noqa: ANN401  # checked by Settings
) -> Front:
    """Search how small, how fast and how accurate a model can be compiled.

    Args:
        model: a checkpoint or graph file; a module is searched in this process alone.
        data: the data set; a quarter of its training images, at most 128, is held out to choose
            by, and the evaluation images are read once, for the files of the front.
        budget: loss, bytes and milliseconds that are allowed; by default a loss of 1 %.
        output: the folder that gets the files: `01.onnx` and so on, `best.onnx`, each with report
            and recipe; `front.json`, `front.html`.
        time: seconds of the search, its files included, or "20m"; by default 30m without `trials`.
        trials: pipelines to try at most.
        prefer: what the best file within the budget is: the smallest (the default, but for a
            budget of time alone), or the fastest.
        jobs: trials side by side; by default as many as cores and memory allow.
        threads_per_trial: PyTorch's and the runtime's; kept in the recipes.
        ray: HOST:PORT of a Ray cluster that runs the trials, or `auto`; see `sweep`.
        latency: whether times count.
        measure: a command that prints the milliseconds of `{onnx}`, in place of the runtime here.
        space: a TOML file of what may be tried; see `yqc tune --print-space`.
        resume: go on with the search in the output folder.
        registry: where names of passes are looked up.
        settings: settings to start from.
        progress: where trials are shown.
        choices: any of the settings by name; see `Settings`.

    Raises:
        BudgetError: no trial gave a file.
        YqcError: something contradicts itself, or cannot be read or written.
    """
    settings = choose(settings, choices | ({} if data is None else {"data": data}))
    asked: dict[str, Any] = {"output": output, "time": time, "trials": trials, "prefer": prefer}
    asked |= {"jobs": jobs, "latency": latency, "measure": measure, "resume": resume}
    make_question(budget, target=settings.target, **asked)
    session = Session(model, settings=settings, registry=registry, progress=progress)
    how: dict[str, Any] = {"space": space, "threads_per_trial": threads_per_trial}
    if ray is None:
        return session.tune(budget, **how, **asked)
    if not isinstance(model, str | Path):
        raise SettingError("ray", "needs a model that is a file")
    with join_cluster(ray) as joined:
        workers = RayWorkers(joined, jobs, threads_per_trial)
        return session.tune(budget, cluster=workers, **how, **asked)


@with_choices(*(name for name in SETTINGS if name != "passes"))
def sweep(
    models: str | Path | Sequence[str | Path],
    passes: str | Sequence[str] = (),
    *,
    grid: str | Sequence[str] = (),
    output: str | Path = "sweep",
    jobs: int | None = None,
    threads_per_trial: int = 1,
    ray: str | None = None,
    latency: bool = True,
    resume: bool = False,
    registry: Registry | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **choices: Any,  # noqa: ANN401  # checked by Settings
) -> Comparison:
    """Compile models with pipelines, each with each, and compare what came of it.

    Args:
        models: checkpoints or graph files; or one TOML file that lists models and pipelines.
        passes: a pipeline, or several.
        grid: a pipeline with lists of values, or several: `int8{ranges=[relevance,mse]}`.
        output: the folder that gets `MODEL/PASSES.onnx` with report and recipe, `compare.html` and
            `compare.json`.
        jobs: compiles side by side; by default as many as cores and memory allow.
        threads_per_trial: PyTorch's and the runtime's; kept in the recipes.
        ray: HOST:PORT of a Ray cluster that runs them, or `auto`: the one here, else a new one.
        latency: whether times are taken.
        resume: keep what an earlier sweep into this folder has done.
        registry: where names of passes are looked up.
        settings: settings to start from.
        progress: where compiles are shown.
        choices: any of the settings by name; see `Settings`.

    Returns:
        The comparison; a compile that failed is a row with its reason.

    Raises:
        YqcError: what is asked is wrong, or the folder cannot be written.
    """
    base = replace(choose(settings, choices), threads=threads_per_trial)
    registry, paths = registry or Registry.default(), _as_list(models)
    if [Path(one).suffix for one in paths] == [".toml"]:
        plan = read_plan(Path(paths[0]), base, registry)
    else:
        lists = _as_list(passes), _as_list(grid)
        plan = plan_sweep([(None, Path(one), base, *lists) for one in paths], registry)
    how: dict[str, Any] = {"resume": resume, "latency": latency, "progress": progress or Silent()}
    if ray is None:
        return run_sweep(plan, Path(output), LocalWorkers(choose_jobs(jobs)), **how)
    with join_cluster(ray) as cluster:
        workers = RayWorkers(cluster, jobs, threads_per_trial)
        how["take_time"] = partial(take_on, workers)
        return run_sweep(plan, Path(output), workers, **how)


def _as_list(given: str | Path | Sequence[str | Path]) -> list[Any]:
    return [given] if isinstance(given, str | Path) else [*given]


def search_space(
    model: AnyModel,
    time: float | str | None = None,
    *,
    settings: Settings | None = None,
    registry: Registry | None = None,
) -> SearchSpace:
    """Return what `tune` may try of a model by default, in so many seconds; its text is TOML.

    Raises:
        YqcError: the model cannot be read.
    """
    settings, registry = settings or Settings(), registry or Registry.default()
    source = open_source(model, settings)
    steps = training_steps(source, read_time(time))
    return SearchSpace.default(registry, steps, trains=source.form is not None)


def lint(model: str | Path, *, target: str = "onnxruntime") -> LintResult:
    """List what a runtime will refuse, saturate or leave unfused in an ONNX file.

    Raises:
        YqcError: there is no such target, or the file cannot be read.
    """
    name = find_runtime(target)
    return LintResult(str(model), name, tuple(find_faults(Path(model), name)))


@with_choices(*MODEL)
def inspect(
    model: AnyModel,
    *,
    graph: bool = False,
    node: str | None = None,
    around: int = 1,
    settings: Settings | None = None,
    **choices: Any,  # noqa: ANN401  # checked by Settings
) -> rp.ModelSummary | OnnxSummary | View | NodeView:
    """Summarise a model; or with `graph` view its graph, or with `node` all that is known of one.

    Args:
        model: a checkpoint, graph file, snapshot or ONNX file; a module always gives its graph.
        graph: whether to return the whole graph.
        node: a node's name, or a module's path.
        around: how many steps from the node the graph is shown.
        settings: settings to start from.
        choices: `imgsz`, `head`, `arch`.

    Raises:
        YqcError: the model cannot be read, or has no such node.
    """
    settings, path = choose(settings, choices), find_file(model)
    if node is not None:
        return NodeView.of(look(model, settings), node, around)
    if graph or path is None:
        return look(model, settings)
    if path.suffix != ".onnx":
        return summarize(path, arch=None if settings.arch is None else Path(settings.arch))
    about = {p.key: p.value for p in read_onnx(path, weights=False).metadata_props}
    return OnnxSummary(look(path), path.stat().st_size, about)


@with_choices(*MODEL, *DATA, "target")
def diff(
    a: AnyModel,
    b: AnyModel | None = None,
    *,
    passes: str | Sequence[str] = (),
    params: bool = False,
    context: int = 3,
    registry: Registry | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **choices: Any,  # noqa: ANN401  # checked by Settings
) -> Diff:
    """Compare two graphs, or what one or two pipelines make of one: ops, nodes, parameters.

    Args:
        a: a checkpoint, graph file, snapshot, ONNX file or module.
        b: another one; or none, and `passes`.
        passes: a pipeline, or two to compare.
        params: whether to compare weights and bytes, too.
        context: lines around every change in the unified diff.
        registry: where names of passes are looked up.
        settings: settings to start from.
        progress: where long work is shown.
        choices: `imgsz`, `head`, `arch`, `data`, `images`, `single_class`, `strict`, `target`.

    Raises:
        YqcError: a model cannot be read, or a pipeline fails.
    """
    settings = choose(settings, choices)
    if b is None:
        first, second = ["", *([passes] if isinstance(passes, str) else passes)][-2:]
        sides = [staged(a, text, settings, registry, progress) for text in (first, second)]
    else:
        built = [isinstance(m, str | Path) and Path(m).suffix == ".onnx" for m in (a, b)]
        sides = [
            look(model, None if is_onnx else settings, emitted=any(built))
            for model, is_onnx in zip((a, b), built, strict=True)
        ]
    return compare_views(*sides, context=context, params=params)


@with_choices(*MODEL, *DATA, "target")
def explain(
    passes: str,
    model: AnyModel,
    *,
    draw: bool = False,
    registry: Registry | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    **choices: Any,  # noqa: ANN401  # checked by Settings
) -> Explanation:
    """Explain what a pass would do to a model, and what it refuses and why.

    Args:
        passes: a pass with its options; of several the last one is explained.
        model: a checkpoint, graph file, snapshot or module.
        draw: whether to draw what it looks at, in the language of Graphviz.
        registry: where names of passes are looked up.
        settings: settings to start from.
        progress: where long work is shown.
        choices: as of `diff`.

    Raises:
        YqcError: no such pass, no such model, or the pass fails.
    """
    return explain_pass(passes, model, choose(settings, choices), registry, progress, draw=draw)
