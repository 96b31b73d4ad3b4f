"""From argv to an exit code: the only place that prints errors or exits."""

import argparse
import importlib
import keyword
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, NoReturn

from morpheus_boot import __version__
from morpheus_boot.config.argv import find_command, stays, value_of
from morpheus_boot.config.redact import Redactor
from morpheus_boot.config.settings import (
    LOCK_TIMEOUT_S,
    LOG_FORMATS,
    RETRY_S,
    Invocation,
    Overrides,
    Settings,
    read_settings,
    read_what_is_right,
)
from morpheus_boot.errors import Exit, MorpheusError, UsageError, all_of, each_of
from morpheus_boot.report.log import set_up_log
from morpheus_boot.report.stdout import ReaderGone, print_text
from morpheus_boot.services.signals import Interrupted

_LOG: Final = logging.getLogger("morpheus.boot")


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its module below commands/, and what adds the options that it alone takes."""

    name: str
    does: str
    options: tuple[Callable[[argparse.ArgumentParser], None], ...] = ()

    @property
    def module(self) -> str:
        """The module's full name; ``import`` alone could not be imported by a statement."""
        suffix = "_" if keyword.iskeyword(self.name) else ""
        return f"morpheus_boot.commands.{self.name}{suffix}"


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _retry_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry-for",
        dest="retry_s",
        type=_positive,
        default=RETRY_S,
        metavar="SECONDS",
        help="how long an origin may fail before it is given up (default: %(default).0f)",
    )


def _fill_options(parser: argparse.ArgumentParser) -> None:
    _retry_option(parser)
    parser.add_argument(
        "--replace-in-place",
        action="store_true",
        help="remove the old model before its replacement comes: for where both don't fit",
    )
    parser.add_argument(
        "--lock-timeout",
        dest="lock_timeout_s",
        type=_positive,
        default=LOCK_TIMEOUT_S,
        metavar="SECONDS",
        help="the longest wait for a model that another worker fetches (default: %(default).0f)",
    )


def _verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repair", action="store_true", help="fetch what is damaged anew")


def _gc_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="remove what is listed")
    parser.add_argument(
        "--forget",
        action="append",
        default=[],
        metavar="ID",
        help="an endpoint or worker whose manifest counts no more",
    )
    parser.add_argument(
        "--jobs-older-than",
        dest="jobs_older_than_h",
        type=_positive,
        metavar="HOURS",
        help="old jobs too: untouched for so long",
    )


def _write_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--write", action="store_true", help="put it into models.yaml's place")


def _file_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="a morpheus_resources_*.txt")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


COMMANDS: Final = (
    Command("up", "the whole boot, then supervises ComfyUI and the file server", (_fill_options,)),
    Command("files", "the file server alone: a CPU Pod as the gateway to the volume"),
    Command("fill", "brings every model into the cache, nothing else", (_fill_options,)),
    Command("plan", "says what up would do; changes nothing", (_json_option, _retry_option)),
    Command(
        "status",
        "the cache, the workers on the volume, this container's services",
        (_json_option,),
    ),
    Command(
        "verify",
        "reads every cached model again and compares its SHA-256 with the record",
        (_json_option, _verify_options),
    ),
    Command("gc", "lists what no endpoint needs any more", (_json_option, _gc_options)),
    Command(
        "pin",
        "prints models.yaml with digests, sizes and commits filled in, comments kept",
        (_write_option,),
    ),
    Command("doctor", "looks at all that a boot needs, and says how it stands", (_json_option,)),
    Command(
        "import",
        "turns the old scripts' resource list into models.yaml on stdout",
        (_file_argument,),
    ),
    Command(
        "smoke",
        "proves the whole chain on this machine, with models and a volume of its own whatever is given, and prints"
        " its times",
    ),
)


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the exit code."""
    redact = Redactor()
    set_up_log("text", 0, redact)
    try:
        parsed, settings = _read(argv, redact)
        set_up_log(settings.log_format, settings.verbosity, redact)
        command = next(command for command in COMMANDS if command.name == parsed.command)
        importlib.import_module(command.module).run(_invocation(parsed, settings, redact))
    except Interrupted as stop:
        return 128 + stop.signum
    except ReaderGone:
        return 128 + signal.SIGPIPE
    except MorpheusError as error:
        return _say(error, verbose="-v" in argv)
    except Exception:  # noqa: BLE001 - the last resort: a bug ends with its traceback and 70
        _LOG.exception("a bug of ours (exit %d); please report it with these lines", Exit.BUG)
        return Exit.BUG
    return Exit.DONE


def _read(argv: Sequence[str], redact: Redactor) -> tuple[argparse.Namespace, Settings]:
    """Arguments and environment. Raises all that is wrong with them, after what _give_up() does with that."""
    try:
        parsed = _parse(argv)
        overrides = Overrides(
            parsed.models, parsed.volume, parsed.comfyui, parsed.log_format, parsed.verbosity
        )
        settings = read_what_is_right(overrides) or read_settings(overrides)
        # The doctor goes on past what is wrong, and names it among its findings.
        if settings.wrong and parsed.command != "doctor":
            raise all_of(settings.wrong)
    except MorpheusError as error:
        _give_up(error, argv, redact)
        raise
    redact.add(settings.secrets)
    return parsed, settings


def _give_up(error: MorpheusError, argv: Sequence[str], redact: Redactor) -> None:
    """Makes an early ``error`` as visible as any other: in the log's own format, and held, both as far as is known."""
    log_format = value_of("--log-format", argv)
    known = log_format if log_format in LOG_FORMATS else None
    settings = read_what_is_right(Overrides(log_format=known))
    if settings is None:
        return
    redact.add(settings.secrets)
    set_up_log(settings.log_format, 0, redact)
    if stays(argv) and settings.hold_s:
        boot = importlib.import_module("morpheus_boot.boot")
        boot.hold_error(Invocation(settings, redact), error)


def _say(error: MorpheusError, *, verbose: bool) -> int:
    for one in each_of(error):
        _LOG.error("%s (exit %d)", one, one.exit_code, exc_info=one if verbose else None)
    return error.exit_code


def _invocation(parsed: argparse.Namespace, settings: Settings, redact: Redactor) -> Invocation:
    names = {field.name for field in fields(Invocation)}
    given = {name: value for name, value in vars(parsed).items() if name in names}
    if "forget" in given:
        given["forget"] = tuple(given["forget"])
    return Invocation(settings, redact, **given)


class _Parser(argparse.ArgumentParser):
    """argparse, with our exit code for what it doesn't understand, and our stdout for its help."""

    def error(self, message: str) -> NoReturn:
        raise UsageError("command line", message, f"see {self.prog} --help")

    def _print_message(self, message: str, file: object = None) -> None:  # noqa: ARG002 - always stdout
        print_text(message)


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument(
        "--models", type=Path, metavar="FILE", help="the manifest (MORPHEUS_MODELS)"
    )
    common.add_argument("--volume", type=Path, metavar="DIR", help="the volume (MORPHEUS_VOLUME)")
    common.add_argument("--comfyui", type=Path, metavar="DIR", help="ComfyUI (COMFYUI_DIR)")
    common.add_argument("--log-format", choices=LOG_FORMATS, help="the log (MORPHEUS_LOG)")
    loudness = common.add_mutually_exclusive_group()
    loudness.add_argument(
        "-q", dest="verbosity", action="store_const", const=-1, help="warnings and errors alone"
    )
    loudness.add_argument(
        "-v", dest="verbosity", action="store_const", const=1, help="more lines, and tracebacks"
    )
    common.add_argument("--version", action="version", version=f"morpheus boot {__version__}")
    common.set_defaults(verbosity=0)
    parser = _Parser(
        prog="pod_start.sh",
        parents=[common],
        description="Fills a model cache on a shared volume, then runs ComfyUI and a file server.",
        epilog="No command means up. Each command has its own --help.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name, parents=[common], help=command.does, description=command.does
        )
        for add_options in command.options:
            add_options(sub)
    return parser


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parsed, unknown = _parser().parse_known_args(_command_first(argv))
    if unknown:
        raise UsageError(
            "command line",
            f"unrecognized arguments: {' '.join(unknown)}",
            f"see pod_start.sh {parsed.command} --help",
        )
    return parsed


def _command_first(argv: Sequence[str]) -> list[str]:
    """``argv`` with its command in front, ``up`` where there is none: options may stand on both sides."""
    at = find_command(argv)
    if at is not None and argv[at] == "help":
        return [*argv[at + 1 :], "--help"]
    if at is not None:
        return [argv[at], *argv[:at], *argv[at + 1 :]]
    asked = {"-h", "--help", "--version"} & set(argv)
    return list(argv) if asked else ["up", *argv]
