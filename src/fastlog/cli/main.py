"""`fastlog`: finds the command, and imports only that one, so that `fastlog serve` starts without what the others need."""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastlog.cli.options import Commands

# Each command's module has `register(commands)`, which adds a parser with `run` (Namespace -> exit code) among its defaults.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("fastlog.cli.serve", "run a broker"),
    "status": ("fastlog.cli.status", "show how a broker is doing"),
    "topic": ("fastlog.cli.topic", "create, list, describe, alter and delete topics"),
    "produce": ("fastlog.cli.produce", "send records"),
    "consume": ("fastlog.cli.consume", "read records"),
    "group": ("fastlog.cli.group", "list, describe, reset and delete consumer groups"),
    "log": ("fastlog.cli.log", "check, dump and copy the files of logs"),
    "bench": ("fastlog.cli.bench", "measure what this host can do, and a broker on it beside that"),
    "completion": ("fastlog.cli.completion", "print a completion script for a shell"),
}
EXAMPLES = """\
examples:
  fastlog serve --data /var/lib/fastlog
  fastlog topic create orders --partitions 8
  fastlog consume orders --follow
  fastlog COMMAND --help

exit codes: 0 done · 1 failed · 2 wrong usage · 3 no broker there · 4 no such topic or group · 130, 143 interrupted"""


class _Version(argparse.Action):
    """Looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002 - argparse's name
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from fastlog._version import version

        print(f"fastlog {version}")
        parser.exit()


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; with `only`, the other commands' names without their options."""
    parser = argparse.ArgumentParser(
        prog="fastlog",
        description="An event-streaming broker that speaks the Kafka protocol, and its tools.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    commands: Commands[argparse.ArgumentParser] = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (module, summary) in COMMANDS.items():
        if only is not None and name != only:
            commands.add_parser(name, help=summary)
        elif name == "completion":
            importlib.import_module(module).register(commands, parser)
        else:
            importlib.import_module(module).register(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = next((a for a in arguments if not a.startswith("-")), "")
    # completion prints what all commands take, so it needs them all
    args = build_parser(None if name == "completion" else name).parse_args(arguments)
    return int(args.run(args))


if __name__ == "__main__":
    sys.exit(main())
