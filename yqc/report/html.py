"""Print a report as one self-contained HTML page: opens offline, loads nothing, under 0.8 MB.

Laid out with jinja2; charts and graph are SVG, so that all is there without a script, too. What is
drawn comes in as numbers (`yqc.report.page`).
"""

import base64
import functools
import shlex
from collections import Counter
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from yqc.report import human
from yqc.report.charts import ROLES, charts, role_class
from yqc.report.drawing import HIGH, WIDE, lay_out_drawing
from yqc.report.histogram import HEIGHT, WIDTH, lay_out_histogram
from yqc.report.page import Page
from yqc.report.parts import Latency, PassRecord, difference, number_names
from yqc.report.report import Report
from yqc.report.terminal import (
    MAIN_NAMES,
    agreement_figures,
    latency_conditions,
    latency_ratio,
    latency_spans,
    score_rows,
    scores_heading,
)

SECTIONS = (
    ("summary", "Summary"),
    ("warnings", "Warnings"),
    ("device", "Device"),
    ("accuracy", "Accuracy"),
    ("images", "Images"),
    ("passes", "Passes"),
    ("bytes", "Bytes"),
    ("quality", "Layers"),
    ("ranges", "Ranges"),
    ("graph", "Graph"),
    ("recipe", "Recipe"),
)
"""Every section, in order: its anchor and its title."""


def to_html(page: Page) -> str:
    """Print the page; the same page gives the same text."""
    report = page.report
    names = tuple(dict.fromkeys(one.name for one in report.passes))
    text: str = _template().render(
        page=page,
        report=report,
        sections=_sections(page),
        tiles=_tiles(page),
        ledger=[(one, _reasons(one)) for one in report.passes],
        number_names=number_names,
        scores=_scores(page),
        command=_command(report),
        roles=_roles(report),
        heading=scores_heading(report.accuracy.float_),
        agreed=agreement_figures(report.accuracy.agreement) if report.accuracy.agreement else (),
        pictures=[(one, base64.b64encode(one.jpeg).decode("ascii")) for one in page.pictures],
        spreads=[lay_out_histogram(one) for one in page.spreads],
        box=(WIDTH, HEIGHT),
        pass_names=names,
        charts=charts(page),
        graph=lay_out_drawing(page.drawing, names) if page.drawing.edges else None,
        node=(WIDE, HIGH),
        role_class=role_class,
        css=_asset("page.css"),
        js=_asset("page.js"),
        human=human,
    )
    return text


def _asset(name: str) -> str:
    return (files("yqc.report") / "templates" / name).read_text(encoding="utf-8")


@functools.cache
def _template() -> Template:
    """Read the template; control characters are escaped unless a text is marked as safe."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: human.clean_lines(value) if type(value) is str else value,
    )
    return environment.from_string(_asset("page.html.j2"))


def _sections(page: Page) -> list[tuple[str, str]]:
    """The sections that there is something to show for."""
    report = page.report
    empty = {
        "warnings": not report.notices,
        "device": report.device is None,
        "images": not page.pictures,
        "ranges": not page.spreads,
        "graph": not page.drawing.edges,
    }
    return [(anchor, title) for anchor, title in SECTIONS if not empty.get(anchor)]


def _command(report: Report) -> str:
    """Return the command line of the compile; settings beyond it stand in the recipe."""
    words = ["yqc", "compile", report.input.path]
    words += ["--passes", report.pipeline.text] if report.pipeline.text else []
    words += ["--data", report.data.path] if report.data else []
    words += [word for one in report.loaded for word in ("--load", one.path)]
    return shlex.join([*words, "--target", report.target])


def _roles(report: Report) -> list[str]:
    """The roles of the layers, in the order of their colours."""
    found = {one.role for one in report.layers}
    return [role for role in ROLES if role in found]


def _tiles(page: Page) -> list[tuple[str, str, str, str]]:
    """Summary: title, before, after, and what that comes to."""
    report = page.report
    size, compute, accuracy = report.size, report.compute, report.accuracy
    fp32, weights, file = map(
        human.byte_count, (size.fp32_bytes, size.weight_bytes, size.file_bytes)
    )
    ratios = f"{human.times(size.ratio_vs_fp32)} of fp32, {human.times(size.ratio_vs_fp16)} of fp16"
    packed = size.deflated_bytes
    deflated = "" if packed is None else f"; {human.byte_count(packed)} deflated"
    macs = human.amount(compute.macs_before), human.amount(compute.macs_after)
    rows = [
        ("Weights", fp32, weights, ratios),
        ("File", fp32, file, f"against 4 bytes a parameter{deflated}"),
        ("MACs", *macs, "multiply-accumulates an image"),
    ]
    if accuracy.float_ is not None and accuracy.compiled is not None:
        main = accuracy.main or "map"
        sides = accuracy.float_, accuracy.compiled
        before, after = (human.fraction(side.figure(main)) for side in sides)
        on = human.plural(accuracy.images, "image")
        if accuracy.interval is not None:
            relative = human.percent(accuracy.relative_drop)
            on = f"{relative} ({human.percent_range(accuracy.interval)}), {on}"
        name = MAIN_NAMES[main]
        rows.append(
            (
                name[0].upper() + name[1:] if main != "map" else name,
                before,
                after,
                f"drop {human.fraction(accuracy.drop)}, {on}",
            )
        )
    elif (outputs := accuracy.outputs) is not None:
        shown = "-" if outputs.sqnr_db is None else f"{outputs.sqnr_db:.1f} dB"
        note = f"largest error {outputs.max_abs_error or 0:.3g}, {accuracy.images} images"
        rows.append(("Outputs, SQNR", "", shown, note))
    elif accuracy.agreement is not None:
        name, value = agreement_figures(accuracy.agreement)[0]
        rows.append(("Agreement", "", human.fraction(value), f"{name} against the float model"))
    else:
        rows.append(("mAP", "", "-", "not measured"))
    if (latency := report.latency) is not None:
        rows += _latency_tiles(latency)
    return rows


def _latency_tiles(latency: Latency) -> list[tuple[str, str, str, str]]:
    before, after = map(human.milliseconds, (latency.float_ms, latency.compiled_ms))
    how = f"{latency_ratio(latency)}; {latency_conditions(latency)}"
    how += f"; 10 to 90 %: {latency_spans(latency)}"
    tiles = [("Latency", f"{before} ms", f"{after} ms", how)]
    if latency.loads_slowly:
        old, new = map(human.milliseconds, latency.load_ms)
        tiles.append(("Load", f"{old} ms", f"{new} ms", f"to open the file in {latency.runtime}"))
    return tiles


def _scores(page: Page) -> list[tuple[str, str, str, str]]:
    """The table of AP: name, float, compiled, drop."""
    accuracy = page.report.accuracy
    if accuracy.float_ is None:
        return []
    pairs = zip(score_rows(accuracy.float_), score_rows(accuracy.compiled), strict=True)
    return [
        (name, human.fraction(a), human.fraction(b), human.fraction(difference(a, b)))
        for (name, a), (_, b) in pairs
    ]


def _reasons(record: PassRecord) -> list[tuple[int, str, str]]:
    """Refusals of a pass, grouped: how many, why, and which nodes."""
    counted = Counter(skip.why for skip in record.skips)
    return [
        (count, why, ", ".join(s.node for s in record.skips if s.why == why))
        for why, count in counted.most_common()
    ]
