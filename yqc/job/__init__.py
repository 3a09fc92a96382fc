"""One compile, around its passes: inputs, outputs, measurements.

In the order in which a compile uses them:

- `checks`: what is refused before any work.
- `fitting`: the rewrites that a device's file asks for, and what is left beyond its limits.
- `plugins`: what of a compile is not yqc's own.
- `entering`: a snapshot of an earlier compile, which is gone on with.
- `foreseen`: the stages of a compile and how long they take.
- `inputs`: the model, the data, and the context that passes work in.
- `judge`: images for calibration, and the agreement of a graph with the original.
- `keys`: the hashes of all that decides a result.
- `work`: what an interrupted compile goes on with.
- `outputs`: a set of files that appears whole, or not at all.
- `verification`: the file against its graph.
- `baseline`: the float model to compare with, kept between compiles.
- `measure`: accuracy and latency beside the float model's.
- `speed`: the latency, in the target's runtime.
- `runtime_rules`: the file against what its runtime wants.
- `layers`: the layers of the graph, as the report lists them.
- `sensitivity`: the effect on the detections of quantizing one layer alone.
- `layer_runs`: the runs of the graph that it is measured by.
- `deflated`: the size of a file in an archive.
- `reporting`: the report and the recipe file.
- `pictures`: what both models found, drawn into images.
- `page`: what the HTML page shows.
- `float_export`: the rewritten float graph as a `torch.export` file.

For other commands:

- `files`: `yqc eval` and `yqc bench`.
- `staged`: graphs of any origin, before and after passes, for `yqc inspect` and `yqc diff`.
- `explain`: `yqc explain`.
"""
