"""The group of all commands, which says what was meant where a name is wrong."""

from typing import Any

from typer.core import TyperGroup

from yqc.errors import near

MEANT = {
    **dict.fromkeys(("optimize", "optimise", "quantize", "convert", "export", "build"), "compile"),
    **dict.fromkeys(("val", "validate", "evaluate", "test", "map"), "eval"),
    **dict.fromkeys(("benchmark", "time", "profile", "latency"), "bench"),
    **dict.fromkeys(("info", "show", "summary", "print", "view"), "inspect"),
    **dict.fromkeys(("check", "validate-onnx", "verify"), "lint"),
    **dict.fromkeys(("search", "auto"), "tune"),
    **dict.fromkeys(("list", "ls", "recipes"), "passes"),
    **dict.fromkeys(("why", "describe"), "explain"),
}
"""Commands as other tools of the field call them."""


class Commands(TyperGroup):
    """The commands; one that does not exist is refused with the one that was meant."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401  # click's types
        """Find the command that the first argument names."""
        name = args[0]
        if name not in self.commands and not name.startswith("-"):
            ctx.fail(f"there is no command {name!r}{self._hint(name)}")
        return super().resolve_command(ctx, args)

    def _hint(self, name: str) -> str:
        """Say which command was meant: one that is called so elsewhere, or is written alike."""
        from yqc.pipeline.registry import Registry  # noqa: PLC0415

        lower = name.lower()
        if lower in MEANT:
            return f"; did you mean {MEANT[lower]!r}?"
        if lower in Registry.default().found:
            return f"; {lower} is a pass: yqc compile MODEL --passes {lower}"
        return near(name, self.commands) or "; `yqc --help` lists them"
