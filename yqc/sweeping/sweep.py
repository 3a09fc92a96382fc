"""Run a sweep: compile every cell, time the files, compare them."""

from dataclasses import replace
from pathlib import Path

from yqc.comparing import ComparedRow, Comparison, read_row, write_page
from yqc.compiler import Session
from yqc.errors import YqcError, first_line
from yqc.pipeline.grammar import split
from yqc.progress import Progress
from yqc.report import human
from yqc.settings import Settings
from yqc.store.folders import check_work_folder
from yqc.sweeping.cells import FLOAT, CellJob, CellResult
from yqc.sweeping.folder import INNER, SweepFolder
from yqc.sweeping.plan import Plan, PlannedModel
from yqc.sweeping.timing import TakesTime, Timing, add_time
from yqc.workers import Opening, Workers
from yqc.workers.jobs import forget_session, unlimited


def sweep(
    plan: Plan,
    output: Path,
    workers: Workers,
    *,
    resume: bool,
    latency: bool,
    progress: Progress,
    take_time: TakesTime = Timing.take,
) -> Comparison:
    """Compile each model with each of its pipelines, and compare what came of it.

    Args:
        plan: models, settings, pipelines.
        output: the folder of results.
        workers: run the cells.
        resume: whether what an earlier sweep into this folder has done is kept.
        latency: whether times are taken.
        progress: where cells are shown.
        take_time: takes the time of one file.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    folder = SweepFolder(check_work_folder(output, INNER), resume)
    results: dict[str, CellResult] = {}
    try:
        _compile_cells(plan, folder, workers, results, progress)
        workers.stop()
        forget_session()
        if latency:
            _time_cells(plan, folder, results, take_time, progress)
        folder.remove_others(results)
    except KeyboardInterrupt as stop:
        done = f"{len(results)} of {human.plural(len(plan.cells), 'compile')} are done"
        stop.add_note(f"{done}; the same command with --resume goes on")
        raise
    finally:
        workers.stop()
        forget_session()
        found = _compare(plan, folder, results)
        for model in plan.models:
            (output / model.name / FLOAT).unlink(missing_ok=True)
    return found


def _compile_cells(
    plan: Plan,
    folder: SweepFolder,
    workers: Workers,
    results: dict[str, CellResult],
    progress: Progress,
) -> None:
    """Run the cells that are not done; of those that begin with the same pass, one first."""
    groups: dict[tuple[str, str], list[CellJob]] = {}
    seen = set[str]()
    for model, passes, name in plan.cells:
        job = CellJob(
            name=name,
            stem=name.partition("/")[2],
            passes=passes,
            opening=_opening(plan, model),
            folder=folder.make(folder.output / model.name),
            known=folder.find_done(name),
            brings_float=model.name not in seen,
        )
        seen.add(model.name)
        groups.setdefault((model.name, _first_pass(passes)), []).append(job)
    with progress.task("compiles", total=len(plan.cells)) as advance:
        for _, result in workers.run([*groups.values()], unlimited):
            if not result.kept:
                plain = result.to_dict()
                folder.note(plain if result.key else {"name": result.name, "lost": result.failed})
            results[result.name] = result
            advance(1)
            progress.note(f"{result.name}: {result.failed or 'done'}")


def _opening(plan: Plan, model: PlannedModel) -> Opening:
    plain = Settings()
    choices = {
        name: value
        for name, value in vars(model.settings).items()
        if name not in {"passes", "written_for", "given"} and value != getattr(plain, name)
    }
    load = tuple(Path(path) for path, _ in plan.registry.files)
    return Opening(Session, model.path, choices, load)


def _first_pass(passes: str) -> str:
    """Return the beginning that pipelines share if they can start behind the same passes."""
    items = split(passes) if passes else []
    return passes[: items[1].at] if len(items) > 1 else f"{passes},"


def _time_cells(
    plan: Plan,
    folder: SweepFolder,
    results: dict[str, CellResult],
    take_time: TakesTime,
    progress: Progress,
) -> None:
    """Take the times that are missing, one at a time."""
    left = [
        (model, name, imgsz)
        for model, _, name in plan.cells
        if (imgsz := results[name].imgsz) is not None
        and not results[name].failed
        and not (results[name].kept and name in folder.timed)
    ]
    with progress.task("times", total=len(left)) as advance:
        for model, name, imgsz in left:
            output = folder.output
            original, compiled = output / model.name / FLOAT, output / f"{name}.onnx"
            timed = take_time(Timing(original, compiled, model.settings, imgsz))
            add_time(folder, name, timed)
            advance(1)


def _compare(plan: Plan, folder: SweepFolder, results: dict[str, CellResult]) -> Comparison:
    """Compare the cells that have ended, in the order of the plan; write page and JSON."""
    rows = [
        _row(model, passes, folder.output, results[name])
        for model, passes, name in plan.cells
        if name in results
    ]
    found = Comparison.of(rows)
    folder.replace(folder.output / "compare.json", found.to_json())
    folder.replace(folder.output / "compare.html", write_page(found))
    return found


def _row(model: PlannedModel, passes: str, output: Path, result: CellResult) -> ComparedRow:
    failed = ComparedRow(name=result.name, model=model.name, passes=passes, failed=result.failed)
    if result.failed:
        return failed
    try:
        row = read_row(result.name, output / f"{result.name}.report.json")
    except YqcError as error:
        return replace(failed, failed=first_line(error))
    return replace(row, model=model.name, passes=passes)
