"""The operator's command ``vmaccord``: its options and sub-commands; what each does stands in a module of its own.

On a terminal there are tables and colours; into a pipe goes plain text in which nothing is cut. Whatever fails is one
sentence on stderr and an exit status of ``exits``. A sub-command imports what it needs when it is called, for ``--help``
and completion must be fast.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import click

from host_agent import exits, release
from host_agent.exits import Exit, Failure

from . import completion

if TYPE_CHECKING:
    from host_agent.client import Client

PROGRAM = "vmaccord"

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the command line and return the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = program.main(args=arguments, prog_name=PROGRAM, standalone_mode=False)
        sys.stdout.flush()
    except Failure as error:
        return _fail(error.status, str(error))
    except click.UsageError as error:
        return _fail(Exit.USAGE, f"{error.format_message()} See {PROGRAM} --help.")
    except (click.Abort, EOFError):
        return _fail(Exit.UNEXPECTED, "interrupted")
    except BrokenPipeError:
        # Whoever read the output has seen enough; closing it must not complain again.
        sys.stdout = io.StringIO()
        return Exit.UNEXPECTED
    except Exception as error:  # noqa: BLE001 - people get a sentence, whatever happens
        return _fail(Exit.UNEXPECTED, f"unexpected error, please report it: {error!r}")
    return status if isinstance(status, int) else Exit.OK


def _fail(status: Exit, text: str) -> int:
    print(f"{PROGRAM}: {text}", file=sys.stderr)
    return status


def _print_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        print(f"{PROGRAM} {release()}")
        context.exit()


def _refuse_nothing(_context: click.Context, _option: click.Parameter, path: Optional[str]) -> Optional[str]:
    if path == "":
        raise click.UsageError("--control names no path; name the daemon's control socket, or leave it out for the default.")
    return path


def _refuse_nan(_context: click.Context, _option: click.Parameter, seconds: float) -> float:
    if math.isnan(seconds):
        raise click.UsageError("--timeout is no number; name seconds from 0.1 to 3600.")
    return seconds


# click would fill the lines of a paragraph without the \b.
@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}, epilog="\b\n" + exits.epilog())
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version and exit."
)
@click.option(
    "--control",
    metavar="PATH",
    type=click.Path(),
    envvar="VMACCORD_CONTROL",
    callback=_refuse_nothing,
    help="Control socket of the daemon (default: that of a daemon of this user, else of the service).",
    show_envvar=True,
)
@click.pass_context
def program(context: click.Context, control: Optional[str]) -> None:
    """See what the guests of this host have agreed on and say of themselves, and send them commands."""
    context.obj = control


# ---- Looking ----


@program.command("list")
@_AS_JSON
@click.pass_obj
def list_guests(control: Optional[str], as_json: bool) -> None:
    """List the guests of this host.

    As JSON, with all that is known of each.
    """
    from . import looking

    looking.list_guests(_client(control), as_json)


@program.command()
@click.argument("guest", shell_complete=completion.guests)
@_AS_JSON
@click.pass_obj
def show(control: Optional[str], guest: str, as_json: bool) -> None:
    """Show all that is known of one guest."""
    from . import looking

    looking.show(_client(control), guest, as_json)


@program.command()
@_AS_JSON
@click.pass_obj
def watch(control: Optional[str], as_json: bool) -> None:
    """Watch the list of guests until Ctrl-C.

    On a terminal it is a live table, elsewhere a line for each change; as JSON an object for each change.
    """
    from . import watch

    watch.watch(_client(control), as_json)


@program.command()
@click.option("--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option("--guest", metavar="GUEST", shell_complete=completion.guests, help="Tell only what happens to this guest.")
@click.option(
    "--recent",
    metavar="NUMBER",
    type=click.IntRange(min=0, max=10_000),
    help="Begin with so many of the latest events (default: 20, with --follow none).",
)
@_AS_JSON
@click.pass_obj
def events(control: Optional[str], follow: bool, guest: Optional[str], recent: Optional[int], as_json: bool) -> None:
    """Tell what happens on this host.

    As JSON, an object a line.
    """
    from . import looking

    looking.events(_client(control), follow, guest, recent, as_json)


@program.command()
@click.option("--guest", metavar="GUEST", shell_complete=completion.guests, help="Tell what may be sent to this guest now.")
@_AS_JSON
@click.pass_obj
def messages(control: Optional[str], guest: Optional[str], as_json: bool) -> None:
    """Show all messages, or what a guest may be sent.

    With --guest: which commands it may be sent now, and why not the others.
    """
    from . import looking

    looking.messages(None if guest is None else _client(control), guest, as_json)


# ---- Commanding ----


@program.command()
@click.argument("words", metavar="GUEST COMMAND [KEY=VALUE]...", nargs=-1, required=True, shell_complete=completion.words)
@click.option("--all", "to_all", is_flag=True, help="Send it to all guests that have a port; then GUEST is left out.")
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600.0),
    default=30.0,
    show_default=True,
    callback=_refuse_nan,
    help="How long to wait for the completion of a command that has one.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for a completion.")
@_AS_JSON
@click.pass_obj
def send(
    control: Optional[str], words: Sequence[str], to_all: bool, timeout: float, no_wait: bool, as_json: bool
) -> Optional[Exit]:
    """Send a command to a guest.

    Where the command has a completion, that is waited for.

    KEY=VALUE is an argument of the command, KEY:=JSON one that is written as JSON. A password may not stand here: write
    password=@FILE or password=@- (standard input), or leave it out on a terminal to be asked. 'vmaccord messages' shows all
    commands and their arguments.
    """
    from . import sending

    needed = 1 if to_all else 2
    if len(words) < needed:
        raise click.UsageError("Missing argument 'COMMAND'.")
    target, command, pairs = words[: needed - 1], words[needed - 1], words[needed:]
    if to_all:
        return sending.send_to_all(_client(control), command, pairs, timeout, not no_wait, as_json)
    sending.send(_client(control), target[0], command, pairs, timeout, not no_wait, as_json)
    return None


@program.command()
@click.argument("guest", required=False, shell_complete=completion.guests)
@click.option("--all", "to_all", is_flag=True, help="Ask all guests that have a port; then GUEST is left out.")
@_AS_JSON
@click.pass_obj
def refresh(control: Optional[str], guest: Optional[str], to_all: bool, as_json: bool) -> Optional[Exit]:
    """Ask a guest to say everything again."""
    from . import sending

    if (guest is None) is not to_all:
        raise click.UsageError("Name either a GUEST or --all.")
    if guest is None:
        return sending.refresh_all(_client(control), as_json)
    sending.refresh(_client(control), guest, as_json)
    return None


# ---- Help ----


@program.command()
@click.argument("guest", required=False, shell_complete=completion.guests)
@_AS_JSON
@click.pass_obj
def doctor(control: Optional[str], guest: Optional[str], as_json: bool) -> Exit:
    """Look for everything that can be wrong.

    With GUEST, look closely at this one, and at no other.
    """
    from .doctor import visit

    return visit.doctor(control, guest, as_json)


@program.command("completion")
@click.argument("shell", type=click.Choice(completion.SHELLS))
def print_completion(shell: str) -> None:
    """Print the script for completion in a shell.

    The packages bring it along. Elsewhere: eval "$(vmaccord completion bash)", or the like in your shell's start-up file.
    """
    print(completion.script(program, PROGRAM, shell), end="")


@program.command()
@click.option("--vm", "on_vm", is_flag=True, help="Play it on a real VM that migrates live; needs QEMU and a checkout.")
def demo(on_vm: bool) -> int:
    """Play a demonstration with simulated guests.

    It needs no daemon and no VM.
    """
    # Only this command pays for what it imports.
    if not on_vm:
        from host_agent import demo as emulated

        return emulated.play()
    try:
        from host_agent.demo import virtual
    except ModuleNotFoundError as missing:
        raise Failure(f"the demonstration on a VM needs {missing.name}: pip install 'vmaccord[vm]'") from None
    return virtual.play()


def _client(control: Optional[str]) -> Client:
    from host_agent.client import Client

    return Client(control)
