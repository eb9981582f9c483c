"""The operator's command ``vmaccord``: its options and sub-commands; what each does stands in a module of its own.

On a terminal there are tables and colours; into a pipe goes plain text in which nothing is cut. Whatever fails is one
sentence on stderr and an exit status of ``exits``. A sub-command imports what it needs when it is called, for ``--help``
and completion must be fast.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, ClassVar, NoReturn, Optional, TypeVar

import click

from host_agent import exits, release
from host_agent.exits import Exit, Failure

from . import completion

if TYPE_CHECKING:
    from host_agent.client import Client

_F = TypeVar("_F", bound=Callable[..., Any])

PROGRAM = "vmaccord"

#: How long a guest may be waited for or stay frozen, and how long a program may run in it, in seconds.
_LONGEST, _LONGEST_RUN = 3600.0, 86_400.0

_ENV_HELP = "Set a variable, NAME=VALUE; or NAME alone, with its value here, as for a secret that nobody else may see."

_LOSS_HELP = "Go on also where an older session spec has no place for all."

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
        asked = PROGRAM if error.ctx is None else error.ctx.command_path
        return _fail(Exit.USAGE, f"{error.format_message()} See {asked} --help.")
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


def _refuse_nan(_context: click.Context, option: click.Parameter, seconds: Optional[float]) -> Optional[float]:
    if seconds is not None and math.isnan(seconds):
        raise click.UsageError(f"{option.opts[0]} is no number; name so many seconds.")
    return seconds


def _read_spec(_context: click.Context, option: click.Parameter, text: Optional[str]) -> Optional[int]:
    from common.handoff import documents

    known = {str(number): number for number in documents.SPECS}
    if text is not None and text not in known:
        raise click.UsageError(f"{option.opts[0]} is no session spec; name one of {', '.join(known)}.")
    return known.get(text or "")


def _read_uuid(_context: click.Context, option: click.Parameter, text: Optional[str]) -> Optional[str]:
    from common.handoff.members import UUID

    try:
        return None if text is None else str(UUID.check(text))
    except ValueError:
        raise click.UsageError(f"{option.opts[0]} is no UUID; name it as virsh domuuid prints it.") from None


def _seconds(names: str, shortest: float, longest: float, help_text: str, **more: Any) -> Callable[[_F], _F]:
    """An option that is a number of seconds; *names* are its own, and that of its parameter where that is another one."""
    bounded = click.FloatRange(shortest, longest)
    return click.option(*names.split(), metavar="SECONDS", type=bounded, callback=_refuse_nan, help=help_text, **more)


_ANSWER_TIMEOUT = _seconds("--timeout", 0.1, _LONGEST, "How long to wait for the guest's answer (default: 30).")


_FOLLOW = click.option(
    "--follow", is_flag=True, help="Should the guest move meanwhile, have its new host asked for the completion."
)


class _Running(click.Command):
    """A sub-command whose last argument, behind ``--``, is a program with words and options of its own.

    Without the ``--`` some of them would be taken for options of the sub-command.
    """

    #: How it is written, by its name.
    EXAMPLES: ClassVar[Mapping[str, str]] = {
        "exec": "exec web-1 -- lsblk --json",
        "freeze": "freeze web-1 --thaw-after 30 -- lvcreate --snapshot vg0/web-1",
    }

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Read the words *args*; see ``click.Command``."""
        behind = args[args.index("--") + 1 :] if "--" in args else None
        if behind is None and not context.resilient_parsing and not set(args) & set(self.get_help_option_names(context)):
            self._refuse(context)
        left = super().parse_args(context, args)
        (last,) = (context.params.get(str(each.name)) for each in self.params if each.nargs == -1)
        if not context.resilient_parsing and last != tuple(behind or ()):
            self._refuse(context)
        return left

    def _refuse(self, context: click.Context) -> NoReturn:
        example = f"{PROGRAM} {self.EXAMPLES[str(self.name)]}"
        raise click.UsageError(f"Write -- before the program: {example}.", context)


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
@click.option(
    "--can",
    metavar="COMMAND",
    shell_complete=completion.commands,
    help="List only guests that may be sent this command now.",
)
@_AS_JSON
@click.pass_obj
def list_guests(control: Optional[str], can: Optional[str], as_json: bool) -> None:
    """List the guests of this host.

    As JSON, with all that is known of each.
    """
    from . import looking

    looking.list_guests(_client(control), can, as_json)


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
@_seconds(
    "--timeout",
    0.1,
    _LONGEST,
    "How long to wait for its completion (default: 30; or 10 more than it may take in the guest).",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for a completion.")
@_FOLLOW
@_AS_JSON
@click.pass_obj
def send(
    control: Optional[str],
    words: Sequence[str],
    to_all: bool,
    timeout: Optional[float],
    no_wait: bool,
    follow: bool,
    as_json: bool,
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
    if no_wait and follow:
        raise click.UsageError("Name either --no-wait or --follow.")
    target, command, pairs = words[: needed - 1], words[needed - 1], words[needed:]
    if to_all:
        return sending.send_to_all(_client(control), command, pairs, timeout, not no_wait, as_json, follow)
    sending.send(_client(control), target[0], command, pairs, timeout, not no_wait, as_json, follow)
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


# ---- What backups and operators need ----


@program.command(cls=_Running)
@click.argument("guest", shell_complete=completion.guests)
@click.argument("command", metavar="-- COMMAND [ARGUMENT]...", nargs=-1, required=True)
@_seconds("--thaw-after", 1.0, _LONGEST, "After so many seconds the guest thaws by itself, whatever happens.", required=True)
@click.option(
    "--mountpoint",
    "mountpoints",
    metavar="PATH",
    multiple=True,
    help="Freeze what is mounted here in the guest, and nothing else; may be given several times (default: all).",
)
@_seconds(
    "--timeout",
    0.1,
    _LONGEST,
    "How long the guest may take to freeze, and to thaw, with its hooks.",
    default=60.0,
    show_default=True,
)
@_AS_JSON
@click.pass_obj
def freeze(
    control: Optional[str],
    guest: str,
    command: Sequence[str],
    thaw_after: float,
    mountpoints: Sequence[str],
    timeout: float,
    as_json: bool,
) -> int:
    """Run a command on this host while a guest is frozen.

    The guest's hooks bring databases to rest, and its file systems into a consistent state in which nothing changes. Then
    COMMAND runs, on this host, as one that takes a snapshot. Then the guest is thawed: also when COMMAND fails, and at
    Ctrl-C, SIGTERM or SIGHUP.

    \b
        vmaccord freeze web-1 --thaw-after 30 -- \\
            virsh snapshot-create-as web-1 nightly --disk-only --atomic

    COMMAND finds the guest's name in VMACCORD_GUEST, and in VMACCORD_MOUNTPOINTS what is frozen, one a line. Standard output
    is COMMAND's alone; with --json an object is the last line on standard error.

    The exit status is COMMAND's, or 128 and the number of the signal that ended it. It is 14 where the guest had thawed by
    itself before COMMAND ended, or nobody knows: what COMMAND made may be inconsistent. It is 14, too, where the guest could
    not freeze: then COMMAND did not run. It is 18 where the guest was handed over to another host before it was thawed: it
    thaws there by itself.
    """
    from . import freezing

    return freezing.freeze(_client(control), freezing.Wanted(guest, command, mountpoints, thaw_after, timeout), as_json)


@program.command("exec", cls=_Running)
@click.argument("guest", shell_complete=completion.guests)
@click.argument("argv", metavar="-- PROGRAM [ARGUMENT]...", nargs=-1, required=True)
@_seconds(
    "--timeout", 0.1, _LONGEST_RUN, "After so many seconds the guest ends the program.", default=60.0, show_default=True
)
@click.option("--env", "variables", metavar="VARIABLE", multiple=True, help=_ENV_HELP)
@click.option("--input", "input_file", metavar="FILE", type=click.Path(), help="Let it read this file; - is standard input.")
@_FOLLOW
@_AS_JSON
@click.pass_obj
def execute(
    control: Optional[str],
    guest: str,
    argv: Sequence[str],
    timeout: float,
    variables: Sequence[str],
    input_file: Optional[str],
    follow: bool,
    as_json: bool,
) -> int:
    """Run a program in a guest.

    It runs as root, without a shell, and what it prints comes when it has ended. The guest must have exec turned on.

    \b
        vmaccord exec web-1 -- systemctl is-active postgresql
        vmaccord exec web-1 --input dump.sql -- sudo -u postgres psql
        vmaccord exec web-1 -- sh -c 'df -h | tail -n +2'

    On a terminal what it prints is shown with escapes for whatever a terminal would obey; elsewhere it is byte for byte.

    The exit status is the program's, or 128 and the number of the signal that ended it. It is 13 where the guest ended it
    because its time was over, after what it had printed until then; or where no answer came, and it may still run.
    """
    from . import executing

    environment = executing.read_environment(variables)
    return executing.execute(_client(control), guest, argv, timeout, environment, input_file, follow, as_json)


@program.command("set-time")
@click.argument("guest", shell_complete=completion.guests)
@click.option("--from-hardware-clock", "from_hardware", is_flag=True, help="Set it from the guest's own hardware clock.")
@_ANSWER_TIMEOUT
@_AS_JSON
@click.pass_obj
def set_time(control: Optional[str], guest: str, from_hardware: bool, timeout: Optional[float], as_json: bool) -> None:
    """Set a guest's clock to that of this host.

    It is wrong after the guest was suspended, or restored from a file.
    """
    from . import clock

    clock.set_time(_client(control), guest, from_hardware, timeout, as_json)


@program.command("ssh-keys")
@click.argument("guest", shell_complete=completion.guests)
@click.argument("operation", metavar="list|add|remove", type=click.Choice(["list", "add", "remove"]))
@click.argument("user")
@click.argument("files", metavar="[KEYFILE]...", nargs=-1, type=click.Path())
@_ANSWER_TIMEOUT
@_AS_JSON
@click.pass_obj
def ssh_keys(
    control: Optional[str],
    guest: str,
    operation: str,
    user: str,
    files: Sequence[str],
    timeout: Optional[float],
    as_json: bool,
) -> None:
    """List, add or remove a guest's SSH keys.

    They are the public keys with which USER may log in. Those to add or to remove are the lines of each KEYFILE, as of
    ~/.ssh/id_ed25519.pub, or of standard input for -. The guest must have ssh-keys turned on.

    \b
        vmaccord ssh-keys web-1 list root
        vmaccord ssh-keys web-1 add root ~/.ssh/id_ed25519.pub
    """
    from . import keys

    if bool(files) is (operation == "list"):
        raise click.UsageError("Name no KEYFILE." if files else "Missing argument 'KEYFILE'.")
    keys.ssh_keys(_client(control), guest, operation, user, files, timeout, as_json)


# ---- From host to host ----


@program.group(no_args_is_help=False)
def handoff() -> None:
    """Hand guests over to other hosts.

    A hand-off takes along what a guest's new host can't find out: commands in flight, what is frozen, the last facts. A VM
    that migrates without one works as well. Where the daemon speaks to libvirt it hands over by itself.
    """


@handoff.command("send")
@click.argument("guest", shell_complete=completion.guests)
@click.option(
    "--to",
    metavar="HOST",
    shell_complete=completion.peers,
    help="A peer of the configuration (default: the one that awaits the guest).",
)
@click.option("--allow-loss", is_flag=True, help=_LOSS_HELP)
@_AS_JSON
@click.pass_obj
def handoff_send(control: Optional[str], guest: str, to: Optional[str], allow_loss: bool, as_json: bool) -> None:
    """Hand a guest over to another host.

    To be done when its VM has stopped here and not begun to run there, or soon after. Where the other host does not answer
    in the middle, nobody knows whose guest it is: the daemon asks on until it knows.
    """
    from . import handing

    handing.send(_client(control), guest, to, allow_loss, as_json)


@handoff.command("cancel")
@click.argument("guest", shell_complete=completion.guests)
@click.option("--force", is_flag=True, help="Also where it has moved, or nobody knows: make sure that its VM is not there.")
@_AS_JSON
@click.pass_obj
def handoff_cancel(control: Optional[str], guest: str, force: bool, as_json: bool) -> None:
    """Give up handing a guest over: it stays here."""
    from . import handing

    handing.cancel(_client(control), guest, force, as_json)


@handoff.command("expect")
@click.argument("name")
@click.option("--uuid", metavar="UUID", callback=_read_uuid, help="Its VM's UUID (default: the name counts).")
@_seconds("--for seconds", 1.0, _LONGEST_RUN, "How long to await it (default: 600).")
@_AS_JSON
@click.pass_obj
def handoff_expect(control: Optional[str], name: str, uuid: Optional[str], seconds: Optional[float], as_json: bool) -> None:
    """Await a guest from another host.

    That host, where it is not told whom to hand the guest over to, finds this one.
    """
    from . import handing

    handing.expect(_client(control), name, uuid, seconds, as_json)


@handoff.command("begin")
@click.argument("guest", shell_complete=completion.guests)
@_seconds("--timeout", 0.1, _LONGEST, "How long to wait until the guest is ready.")
@_AS_JSON
@click.pass_obj
def handoff_begin(control: Optional[str], guest: str, timeout: Optional[float], as_json: bool) -> None:
    """Tell a guest that it is about to migrate.

    Its hooks for before_migration run, and are waited for.
    """
    from . import handing

    handing.begin(_client(control), guest, timeout, as_json)


@handoff.command("failed")
@click.argument("guest", shell_complete=completion.guests)
@_AS_JSON
@click.pass_obj
def handoff_failed(control: Optional[str], guest: str, as_json: bool) -> None:
    """Tell a guest that its migration failed."""
    from . import handing

    handing.end(_client(control), guest, "failed", as_json)


@handoff.command("arrived")
@click.argument("guest", shell_complete=completion.guests)
@_AS_JSON
@click.pass_obj
def handoff_arrived(control: Optional[str], guest: str, as_json: bool) -> None:
    """Tell a guest that it has migrated to this host."""
    from . import handing

    handing.end(_client(control), guest, "arrived", as_json)


@handoff.command("list")
@_AS_JSON
@click.pass_obj
def handoff_list(control: Optional[str], as_json: bool) -> None:
    """List hand-offs under way, and guests awaited."""
    from . import handing

    handing.list_handoffs(_client(control), as_json)


@program.command("export")
@click.argument("guest", shell_complete=completion.guests)
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(), required=True, help="Write it here; - is standard output."
)
@click.option(
    "--spec",
    metavar="NUMBER",
    callback=_read_spec,
    shell_complete=completion.specs,
    help="Write this session spec, for an older reader.",
)
@click.option("--allow-loss", is_flag=True, help=_LOSS_HELP)
@_AS_JSON
@click.pass_obj
def export_session(
    control: Optional[str], guest: str, output: str, spec: Optional[int], allow_loss: bool, as_json: bool
) -> None:
    """Write what is known of a guest to a file.

    For a VM that is saved to a file and restored on another host. The guest stays a guest of this host.
    """
    from . import handing

    handing.export(_client(control), guest, output, spec, allow_loss, as_json)


@program.command("import")
@click.argument("file", type=click.Path())
@_AS_JSON
@click.pass_obj
def import_session(control: Optional[str], file: str, as_json: bool) -> None:
    """Take in the guest of an exported file.

    FILE is what export has written; - is standard input.
    """
    from . import handing

    handing.take_in(_client(control), file, as_json)


@program.command("inspect")
@click.argument("file", type=click.Path())
@_AS_JSON
def inspect_session(file: str, as_json: bool) -> None:
    """Show what an exported file says.

    FILE is what export has written; - is standard input. No daemon is asked.
    """
    from . import handing

    handing.inspect(file, as_json)


for _command in (export_session, import_session, inspect_session):
    handoff.add_command(_command)


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
