"""The operator's command ``vmaccord``: one function per sub-command, on top of ``client``.

On a terminal there are tables; into a pipe goes plain text in which nothing is cut. Whatever fails is one sentence on
stderr and an exit status of ``exits``.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from typing import Optional

import click

from . import exits, release, views
from .client import Client, find_control
from .exits import Exit, Failure

PROGRAM = "vmaccord"


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
    except click.Abort:
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


# click would fill the lines of a paragraph without the \b.
@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"]}, epilog="\b\n" + exits.epilog())
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version and exit."
)
@click.option(
    "--control",
    metavar="PATH",
    envvar="VMACCORD_CONTROL",
    callback=_refuse_nothing,
    help="Control socket of the daemon (default: where a daemon of this user has it).",
    show_envvar=True,
)
@click.pass_context
def program(context: click.Context, control: Optional[str]) -> None:
    """See which API version the guests of this host have agreed on, and what they say of themselves."""
    context.obj = control


@program.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of all that is known of each guest.")
@click.pass_obj
def list_guests(control: Optional[str], as_json: bool) -> None:
    """List the guests of this host."""
    client = _client(control)
    guests = client.guests()
    if as_json:
        _print_json(guests)
    elif not guests:
        print(views.nobody(client.host()), file=sys.stderr)
    elif sys.stdout.isatty():
        _print_table(views.overview(guests))
    else:
        print(views.columns([views.HEADERS, *views.overview(guests)]))


@program.command()
@click.argument("guest")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def show(control: Optional[str], guest: str, as_json: bool) -> None:
    """Show all that is known of one guest."""
    description = _client(control).guest(guest)
    if as_json:
        _print_json(description)
    else:
        print(views.details(description))


@program.command()
@click.option("--vm", "on_vm", is_flag=True, help="Play it on a real VM that migrates live; needs QEMU and a checkout.")
def demo(on_vm: bool) -> int:
    """Play a demonstration with simulated guests; needs no daemon and no VM."""
    # Only this command pays for what it imports.
    if not on_vm:
        from . import demo as emulated

        return emulated.play()
    try:
        from .demo import virtual
    except ModuleNotFoundError as missing:
        raise Failure(f"the demonstration on a VM needs {missing.name}: pip install 'vmaccord[vm]'") from None
    return virtual.play()


def _client(control: Optional[str]) -> Client:
    return Client(find_control() if control is None else control)


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2))


def _print_table(rows: list[tuple[str, ...]]) -> None:
    # Slow to import, and only terminals need them.
    from rich import box, console, table, text

    drawn = table.Table(box=box.SIMPLE_HEAD)
    for header in views.HEADERS:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        drawn.add_row(*(text.Text(cell) for cell in row))
    console.Console(markup=False, highlight=False, emoji=False).print(drawn)


if __name__ == "__main__":
    sys.exit(main())
