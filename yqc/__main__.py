"""`yqc`, and `python -m yqc`: the command line as a process."""

from yqc.commands.process import guard


def run() -> None:
    """Run the command line, from its first moments on with signals handled."""
    guard()
    from yqc.cli import run as run_command_line  # noqa: PLC0415

    run_command_line()


if __name__ == "__main__":
    run()
