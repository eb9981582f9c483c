"""The layers: ``host_agent → common ← guest_agent``; ``common`` does no I/O and reads no clock, the guest stays small.

Imports are read from the sources, wherever they stand; nothing is imported, but once in an interpreter of its own, to see
what the resident part of the guest agent drags in from the standard library. Directories are checked as well: a directory of
tests without ``__init__.py`` shadows the package of that name, and ``packaging`` with one shadows PyPI's.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Modules by which I/O is done, a clock is read, a thread or process is started, or chance comes in.
IO_AND_CLOCKS = frozenset(
    [
        *["_io", "_socket", "_thread", "_time", "aiohttp", "asyncinotify", "asyncio", "atexit", "builtins", "calendar"],
        *["click", "codecs", "concurrent", "contextvars", "ctypes", "datetime", "errno", "fcntl", "fileinput"],
        *["getpass", "glob", "grp", "http", "importlib", "inotify", "io", "logging", "mmap", "multiprocessing", "os"],
        *["pathlib", "posix", "psutil", "pty", "pwd", "queue", "random", "resource", "rich", "sched", "secrets"],
        *["select", "selectors", "serial", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess"],
        *["sys", "syslog", "tempfile", "termios", "threading", "time", "tty", "urllib", "uuid", "warnings"],
    ]
)

#: What each package must not import.
FORBIDDEN = {
    "common": IO_AND_CLOCKS | {"host_agent", "guest_agent"},
    "host_agent": frozenset({"guest_agent"}),
    "guest_agent": frozenset({"host_agent", "asyncio", "aiohttp", "asyncinotify", "click", "rich"}),
}

#: Built-in functions that do I/O or import behind the back of the checks above.
CALLS_FORBIDDEN_IN_COMMON = frozenset({"open", "print", "input", "breakpoint", "eval", "exec", "__import__"})

#: Large modules of the standard library, for which a process that is to stay small has no room.
HEAVY = frozenset(["argparse", "configparser", "dataclasses", "datetime", "inspect", "logging", "subprocess", "threading"])

#: Imports one module, and prints which modules that has loaded.
IMPORTER = """
import sys
module, *sys.path = sys.argv[1:]
before = set(sys.modules)
__import__(module)
print(*sys.modules.keys() - before)
"""


def _imports(source: str, package: str) -> Iterator[str]:
    """The full names that *source*, a module of *package*, imports at any depth."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, package)
            yield from (f"{origin}.{alias.name}".lstrip(".") for alias in node.names)


def _origin(node: ast.ImportFrom, package: str) -> str:
    """The module from which *node* imports; empty where it leaves the top of *package*."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - node.level + 1]
    return ".".join([*kept, *([node.module] if node.module else [])])


def _calls(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _violations(source: str, package: str) -> list[str]:
    """What *source*, a module of *package*, imports or calls and must not."""
    top = package.split(".")[0]
    wrong = [f"imports {name}" for name in _imports(source, package) if name.split(".")[0] in FORBIDDEN[top]]
    if top == "common":
        wrong += [f"calls {name}" for name in _calls(source) if name in CALLS_FORBIDDEN_IN_COMMON]
    return wrong


def _modules(top: str) -> Iterator[tuple[Path, str]]:
    """Each source file below the package *top*, and the package it is a module of."""
    for path in sorted((ROOT / top).rglob("*.py")):
        yield path, ".".join(path.relative_to(ROOT).parent.parts)


def _directories(top: Path) -> list[Path]:
    """*top* and each directory below that holds Python sources, at any depth."""
    below = (path for path in top.rglob("*") if path.is_dir() and path.name != "__pycache__")
    return [path for path in (top, *below) if any(path.rglob("*.py"))]


def _loaded_by(module: str) -> set[str]:
    """What importing *module* loads, in an interpreter without site: that one loads what its installation tells it to."""
    command = [sys.executable, "-I", "-S", "-c", IMPORTER, module, str(ROOT), *sys.path]
    return set(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.split())


# ---- The sources ----


@pytest.mark.parametrize("top", list(FORBIDDEN))
def test_no_module_reaches_out_of_its_layer(top: str) -> None:
    wrong = {str(path): found for path, package in _modules(top) if (found := _violations(path.read_text("utf-8"), package))}
    assert wrong == {}


def test_every_module_of_the_core_was_looked_at() -> None:
    names = {path.stem for path, _ in _modules("common")}
    assert {"session", "codec", "framing", "negotiation", "settings", "documents", "frames", "window"} <= names


@pytest.mark.parametrize(
    ("package", "source", "violation"),
    [
        ("common", "import time", "imports time"),
        ("common", "import json, socket as plug", "imports socket"),
        ("common", "import os.path", "imports os.path"),
        ("common", "from time import monotonic", "imports time.monotonic"),
        ("common", "def later():\n    from asyncio import sleep", "imports asyncio.sleep"),
        ("common", "if TYPE_CHECKING:\n    import logging", "imports logging"),
        ("common", "from host_agent import main", "imports host_agent.main"),
        ("common.deeper", "from ... import guest_agent", "imports guest_agent"),
        ("common.handoff", "import ssl", "imports ssl"),
        ("common", "text = open('/etc/passwd').read()", "calls open"),
        ("common", "clock = __import__('time')", "calls __import__"),
        ("host_agent.api", "from guest_agent.commands import run", "imports guest_agent.commands.run"),
        ("guest_agent", "import host_agent", "imports host_agent"),
        ("guest_agent.collectors", "from ... import host_agent", "imports host_agent"),
        ("guest_agent", "import asyncio", "imports asyncio"),
        ("guest_agent", "import aiohttp.web", "imports aiohttp.web"),
        ("guest_agent", "from click import command", "imports click.command"),
        ("guest_agent", "from rich.console import Console", "imports rich.console.Console"),
    ],
)
def test_a_module_that_reaches_out_of_its_layer_is_found(package: str, source: str, violation: str) -> None:
    assert _violations(source, package) == [violation]


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("common", "import json, re\nfrom collections.abc import Mapping\nfrom . import time_of_day, errors"),
        ("common", "from .io import lines\nfrom .time import now"),
        ("host_agent", "import asyncio, time\nfrom common import session\nopen('x')"),
        ("guest_agent", "import os, selectors, time\nfrom common.session import GuestSession\nfrom .rich import x"),
    ],
)
def test_a_module_that_stays_in_its_layer_is_not_accused(package: str, source: str) -> None:
    assert _violations(source, package) == []


# ---- The weight ----


def test_the_core_of_a_session_loads_nothing_heavy() -> None:
    loaded = _loaded_by("common.session")
    assert "common.messages" in loaded
    assert loaded & HEAVY == set()


def test_the_core_of_a_session_does_not_load_the_hand_off() -> None:
    assert [name for name in _loaded_by("common.session") if name.startswith("common.handoff")] == []


def test_a_module_that_loads_something_heavy_is_found() -> None:
    assert {"argparse", "configparser"} <= _loaded_by("common.settings") & HEAVY


# ---- The directories ----


def test_every_directory_of_tests_is_a_package() -> None:
    directories = _directories(ROOT / "tests")
    assert ROOT / "tests" / "common" in directories
    assert [str(path) for path in directories if not (path / "__init__.py").is_file()] == []


def test_packaging_is_no_package() -> None:
    assert list((ROOT / "packaging").rglob("__init__.py")) == []


def test_a_directory_of_tests_that_is_no_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    (tmp_path / "deep" / "deeper").mkdir(parents=True)
    (tmp_path / "deep" / "deeper" / "test_it.py").touch()
    assert _directories(tmp_path) == [tmp_path, tmp_path / "deep", tmp_path / "deep" / "deeper"]
