"""What a shell completes in values: names of passes within a pipeline, targets."""

from yqc.targets import TARGETS


def complete_pipeline(incomplete: str) -> list[str]:
    """Complete the last pass of a pipeline: `prune,in` to `prune,int4` and `prune,int8`."""
    from yqc.pipeline.registry import Registry  # noqa: PLC0415

    before, comma, last = incomplete.rpartition(",")
    names = sorted(Registry.default().found)
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]


def complete_target(incomplete: str) -> list[str]:
    """Complete the name of a target."""
    names = (name for one in TARGETS.values() for name in (one.name, *one.aliases))
    return [name for name in names if name.startswith(incomplete)]
