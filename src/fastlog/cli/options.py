"""Arguments that several commands share, what they mean, and the frame that each command runs in."""

import argparse
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from fastlog.cli import output
from fastlog.client import ClientError, UnknownGroupError, UnknownTopicError, UnreachableError

if TYPE_CHECKING:
    from fastlog.client import Admin
    from fastlog.client.admin import Partition

Commands = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns
DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
WHERE_HELP = """\
WHERE is one of
  start, end          the first record there is; the end, so that only new records count
  1500                an offset
  -100                the last 100 records of each partition
  2026-05-01T12:30    a time (local unless it says otherwise: 2026-05-01T12:30Z); also @1777638600000, milliseconds since the epoch
  90s, 15m, 2h, 3d    that long ago"""


def add_command(commands: "Commands[argparse.ArgumentParser]", name: str, summary: str, examples: str = "") -> argparse.ArgumentParser:
    """A subcommand whose --help ends with examples and the exit codes."""
    epilog = f"examples:\n{examples.rstrip()}\n\n{output.EXIT_CODES}" if examples else output.EXIT_CODES
    description = summary[0].upper() + summary[1:] + "."
    return commands.add_parser(
        name, help=summary, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_connection(parser: argparse.ArgumentParser) -> None:
    default = os.environ.get("FASTLOG_BOOTSTRAP", DEFAULT_BOOTSTRAP)
    parser.add_argument(
        "-b",
        "--bootstrap",
        metavar="HOST:PORT",
        default=default,
        help=f"where the broker is, or several with commas between (default: $FASTLOG_BOOTSTRAP, else {DEFAULT_BOOTSTRAP})",
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=float, default=15.0, help="how long to wait for an answer (default: 15)")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def add_client_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-X",
        "--client-set",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=key_value,
        help="a setting of the client, by Kafka's name; repeatable",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], type=key_value, help="a setting, by Kafka's name; repeatable"
    )


def key_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


@dataclass(frozen=True, slots=True)
class Where:
    """A place in each partition. `kind`: start, end, offset, last (`value` records before the end), time (milliseconds since the epoch)."""

    kind: str
    value: int = 0

    def offsets(self, admin: "Admin", partitions: "list[Partition]") -> "dict[Partition, int]":
        """The offset of this place in each partition, within what the partition holds."""
        if self.kind == "time":
            return admin.time_offsets(partitions, self.value)
        starts = admin.start_offsets(partitions)
        if self.kind == "start":
            return starts
        ends = admin.end_offsets(partitions)
        if self.kind == "end":
            return ends
        wanted = {p: self.value if self.kind == "offset" else ends[p] - self.value for p in partitions}
        return {p: min(max(wanted[p], starts[p]), ends[p]) for p in partitions}


def where(text: str) -> Where:
    """Parses WHERE. Raises ArgumentTypeError."""
    if text in ("start", "end"):
        return Where(text)
    if text.isdigit():
        return Where("offset", int(text))
    if re.fullmatch(r"-\d+", text):
        return Where("last", int(text[1:]))
    if re.fullmatch(r"@\d+", text):
        return Where("time", int(text[1:]))
    if ago := re.fullmatch(r"(\d+)([smhd])", text):
        seconds = int(ago[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[ago[2]]
        return Where("time", int((time.time() - seconds) * 1000))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not start, end, an offset, -N, a time, @MILLISECONDS or 15m") from None
    return Where("time", round(moment.astimezone().timestamp() * 1000))


def topic_partitions(text: str) -> tuple[str, list[int]]:
    """Parses TOPIC or TOPIC:0,1."""
    name, colon, numbers = text.partition(":")
    try:
        return name, [int(n) for n in numbers.split(",")] if colon else []
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not TOPIC or TOPIC:PARTITION,PARTITION") from None


def confirmed(question: str) -> bool:
    """Asks where there is someone to ask; a program says --yes."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        output.complain(f"{question} say --yes to go ahead without being asked")
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class Terminated(KeyboardInterrupt):
    """SIGTERM: to a command, what Ctrl-C is, so that a consumer leaves its group and a producer sends what it was given."""


def _terminate(number: int, frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends at once
    raise Terminated


def guarded(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """The command with its errors turned into one line and an exit code."""

    def command(args: argparse.Namespace) -> int:
        signal.signal(signal.SIGTERM, _terminate)
        try:
            status = run(args)
            sys.stdout.flush()
        except UnreachableError as error:
            output.complain(f"{error}\n  start a broker with: fastlog serve\n  or name another with: --bootstrap HOST:PORT")
            return output.UNREACHABLE
        except (UnknownTopicError, UnknownGroupError) as error:
            output.complain(str(error))
            return output.NOT_FOUND
        except ClientError as error:
            output.complain(f"{error} ({error.code})")
            return output.FAILED
        except BrokenPipeError:  # `fastlog consume ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return output.OK
        except OSError as error:
            output.complain(str(error))
            return output.FAILED
        except Terminated:
            return output.TERMINATED
        except KeyboardInterrupt:
            return output.INTERRUPTED
        return status

    return command
