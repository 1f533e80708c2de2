"""`fastlog completion`: prints a shell's completion script, made from the parser itself."""

import argparse

from fastlog.cli import output
from fastlog.cli.options import Commands, add_command, guarded
from fastlog.client import ClientError


def register(commands: "Commands[argparse.ArgumentParser]", root: argparse.ArgumentParser) -> None:
    """`root`: the parser of the whole command line."""
    parser = add_command(
        commands,
        "completion",
        "print a completion script for a shell",
        """\
  fastlog completion bash > ~/.local/share/bash-completion/completions/fastlog
  fastlog completion zsh > ~/.zfunc/_fastlog          (with fpath+=~/.zfunc before compinit)
  fastlog completion fish > ~/.config/fish/completions/fastlog.fish""",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.set_defaults(run=guarded(lambda args: _completion(args, root)))


def _completion(args: argparse.Namespace, root: argparse.ArgumentParser) -> int:
    try:
        import shtab
    except ImportError:
        raise ClientError("SHTAB_MISSING", "completion needs shtab; install it with: pip install 'fastlog-broker[completion]'") from None
    print(shtab.complete(root, args.shell))
    return output.OK
