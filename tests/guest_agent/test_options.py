"""The settings: what the command line, the files and the defaults say together."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from common import settings, versions
from common.settings import SettingsError
from common.versions import Version
from guest_agent import check, exits, freezing, options
from guest_agent.commands import COMMANDS, Machine, dangerous
from guest_agent.config import Configuration
from guest_agent.exits import Exit
from guest_agent.schedule import NEVER, PERIODS

NOWHERE = "/nonexistent/guest.conf"


def load(*arguments: str, default_file: str = NOWHERE) -> Configuration:
    return options.load(options.parser().parse_args(arguments), default_file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "guest.conf"


def read(file: Path, text: str) -> Configuration:
    """What *file* says once it has *text*."""
    file.write_text(text, encoding="utf-8")
    return load("--config", str(file))


def drop_in(file: Path, name: str, text: str) -> Path:
    directory = Path(f"{file}.d")
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(text, encoding="utf-8")
    return directory / name


def problem(*arguments: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def problem_in(file: Path, text: str) -> str:
    """What is wrong with *text*, without the file's name before it."""
    file.write_text(text, encoding="utf-8")
    before, after = problem("--config", str(file)).split(": ", 1)
    assert before == str(file)
    return after


# ---- Where a value comes from ----


def test_without_a_file_the_defaults_count() -> None:
    assert load() == Configuration(
        port=("/dev/virtio-ports/com.redhat.rhevm.vdsm", "/dev/virtio-ports/ovirt-guest-agent.0"),
        max_api_version=versions.newest(),
        heartbeat=5.0,
        port_timeout=3.0,
        application=load().application,
        ignore_interface=(),
        ignore_file_system=load().ignore_file_system,
        log_level="info",
        periods=PERIODS,
        commands_allow=(),
        commands_block=(),
        commands_login_helper=None,
        commands_deadline=60.0,
        hooks_directory="/etc/vmaccord/hooks.d",
        hooks_deadline=30.0,
        commands_enable=(),
        files_read=(),
        files_write=(),
        freeze_limit=600.0,
    )
    assert "kernel" in load().application
    assert load().ignore_file_system


def test_the_default_file_counts_where_it_exists(file: Path) -> None:
    file.write_text("[guest]\nheartbeat = 7\nport =\n  /dev/hvc0\n  /dev/ttyS1\n", encoding="utf-8")
    loaded = load(default_file=str(file))
    assert loaded.heartbeat == 7
    assert loaded.port == ("/dev/hvc0", "/dev/ttyS1")


def test_a_file_that_was_asked_for_replaces_the_default_file_and_what_is_dropped_in_there(tmp_path: Path) -> None:
    default, asked_for = tmp_path / "default", tmp_path / "asked-for"
    default.write_text("[guest]\nheartbeat = 7\nlog-level = debug\n", encoding="utf-8")
    drop_in(default, "x.conf", "[guest]\nport-timeout = 9\n")
    asked_for.write_text("[guest]\nheartbeat = 8\n", encoding="utf-8")
    loaded = load("--config", str(asked_for), default_file=str(default))
    assert (loaded.heartbeat, loaded.log_level, loaded.port_timeout) == (8.0, "info", 3.0)


def test_an_option_counts_more_than_the_files(file: Path) -> None:
    drop_in(file, "x.conf", "[guest]\nmax-api-version = 2\n")
    assert read(file, "[guest]\nmax-api-version = 1\n").max_api_version is Version.V2
    assert load("--config", str(file), "--max-api-version", "none").max_api_version is None


def test_a_repeated_option_gives_several_values() -> None:
    assert load("--port", "/dev/a", "--port", "/dev/b").port == ("/dev/a", "/dev/b")
    assert load("--application", "bash", "--application", "lib*").application == ("bash", "lib*")


def test_a_relative_path_is_one_from_where_the_agent_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("--port", "port").port == (str(tmp_path / "port"),)


def test_an_empty_file_that_was_asked_for_keeps_the_default_file_out(file: Path) -> None:
    file.write_text("[guest]\nheartbeat = 7\n", encoding="utf-8")
    assert load("--config", os.devnull, default_file=str(file)) == load()


# ---- Files that are dropped in ----


def test_files_that_are_dropped_in_are_read_by_name_and_the_last_one_counts(file: Path) -> None:
    drop_in(file, "20-b.conf", "[guest]\nheartbeat = 20\nport-timeout = 20\n")
    drop_in(file, "10-a.conf", "[guest]\nheartbeat = 10\nlog-level = debug\n")
    drop_in(file, "30-c.conf", "[periods]\nfqdn = 30\n")
    loaded = read(file, "[guest]\nheartbeat = 1\nmax-api-version = 1\nlog-level = error\n[periods]\nfqdn = 1\n")
    assert (loaded.heartbeat, loaded.port_timeout, loaded.log_level) == (20.0, 20.0, "debug")
    assert (loaded.max_api_version, loaded.periods["fqdn"]) == (Version.V1, 30.0)


def test_a_list_that_is_dropped_in_replaces_the_one_before(file: Path) -> None:
    drop_in(file, "x.conf", "[guest]\napplication = bash\n[commands]\nblock = echo\n")
    loaded = read(file, "[guest]\napplication =\n    kernel\n    systemd\n[commands]\nblock = shutdown\n")
    assert (loaded.application, loaded.commands_block) == (("bash",), ("echo",))


def test_what_is_dropped_in_counts_without_the_file_beside_which_it_is(file: Path) -> None:
    drop_in(file, "x.conf", "[guest]\nheartbeat = 7\n")
    assert load(default_file=str(file)).heartbeat == 7


def test_only_files_that_end_in_conf_are_dropped_in(file: Path) -> None:
    for name in (".hidden.conf", "x.conf~", "x.conf.dpkg-dist", "README", "x.CONF"):
        drop_in(file, name, "no configuration")
    assert read(file, "") == load()


def test_characters_that_mean_something_in_patterns_mean_nothing_in_the_name_of_the_file(tmp_path: Path) -> None:
    drop_in(tmp_path / "a.conf", "x.conf", "[guest]\nheartbeat = 7\n")
    drop_in(tmp_path / "[ab]*.conf", "x.conf", "[guest]\nheartbeat = 8\n")
    assert read(tmp_path / "[ab]*.conf", "").heartbeat == 8


def test_an_error_in_a_file_that_is_dropped_in_names_it_its_section_and_key(file: Path) -> None:
    file.write_text("[guest]\nheartbeat = 5\n", encoding="utf-8")
    wrong = drop_in(file, "50-wrong.conf", "[periods]\nfqdn = often\n")
    assert problem("--config", str(file)) == (
        f"{wrong}: [periods] fqdn: 'often' is not allowed; allowed: a number of seconds from 0.1 to 31536000, or never"
    )


def test_a_file_that_is_dropped_in_and_can_not_be_read_is_an_error(file: Path) -> None:
    file.touch()
    Path(f"{file}.d/x.conf").mkdir(parents=True)
    assert problem("--config", str(file)) == f"{file}.d/x.conf: Is a directory; make it readable, or remove it"


# ---- What is wrong ----


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--port", "/with\0zero"),
        ("--max-api-version", "99"),
        ("--heartbeat", "0"),
        ("--port-timeout", "soon"),
        ("--log-level", "loud"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(option: str, value: str) -> None:
    assert re.match(f"{option}: .*allowed: ", problem(option, value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[periods]\nfqdn = 0\n",
            "[periods] fqdn: '0' is not allowed; allowed: a number of seconds from 0.1 to 31536000, or never",
        ),
        (
            "[periods]\nfqdn = inf\n",
            "[periods] fqdn: 'inf' is not allowed; allowed: a number of seconds from 0.1 to 31536000, or never",
        ),
        (
            "[periods]\nfqdn =\n",
            "[periods] fqdn: '' is not allowed; allowed: a number of seconds from 0.1 to 31536000, or never",
        ),
        (
            "[guest]\nheartbeat = never\n",
            "[guest] heartbeat: 'never' is not allowed; allowed: a number of seconds from 0.1 to 31536000",
        ),
        (
            "[periods]\ncapabilities = never\n",
            "[periods] capabilities: 'never' is not allowed; allowed: a number of seconds from 0.1 to 31536000",
        ),
        (
            "[commands]\ndeadline = never\n",
            "[commands] deadline: 'never' is not allowed; allowed: a number of seconds from 0.1 to 31536000",
        ),
        ("[hooks]\ndirectory =\n", "[hooks] directory: '' is not allowed; allowed: an absolute path"),
        ("[hooks]\ndirectory = hooks.d\n", "[hooks] directory: 'hooks.d' is not allowed; allowed: an absolute path"),
        (
            "[commands]\nlogin-helper = ./login\n",
            "[commands] login-helper: './login' is not allowed; allowed: an absolute path, or nothing",
        ),
        ("[guest]\nport =\n", "[guest] port: '' is not allowed; allowed: at least one path"),
        ("[guest]\nport\n", "line 2, 'port', is not allowed; allowed: key = value"),
        ("[guest]\nheartbeat = 1e-9\n", "[guest] heartbeat: '1e-9' is not allowed; allowed: a number of seconds from 0.1 "),
        ("[hooks]\ntimeout = 3\n", "[hooks] timeout: unknown key; allowed: deadline, directory"),
        ("[guest]\ndeadline = 3\n", "[guest] deadline: unknown key; allowed: application, "),
        (
            "[periods]\nheartbeat = 3\n",
            f"[periods] heartbeat: unknown key; allowed: {', '.join(sorted(PERIODS))}",
        ),
        (
            "[commands]\nallow = reboot\n",
            f"[commands] allow: 'reboot' is not allowed; allowed: names out of {', '.join(sorted(COMMANDS))}",
        ),
        ("[command]\n", "unknown section [command]; allowed: [guest], [periods], [commands], [hooks], [files], [freeze]"),
        ("heartbeat = 3\n", "line 1 stands before any section; begin the file with [guest]"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(file: Path, text: str, said: str) -> None:
    assert problem_in(file, text).startswith(said)


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    assert problem("--config", str(path)) == f"{path}: No such file or directory; name a readable file with --config"


def test_a_file_that_is_no_text_is_an_error(file: Path) -> None:
    file.write_bytes(b"[guest]\xff")
    assert "not UTF-8" in problem("--config", str(file))


def test_a_file_that_begins_with_a_byte_order_mark_is_read(file: Path) -> None:
    file.write_text("[guest]\nheartbeat = 7\n", encoding="utf-8-sig")
    assert load("--config", str(file)).heartbeat == 7


def test_a_file_of_any_size_is_not_read_whole() -> None:
    assert "longer than" in problem("--config", "/dev/zero")


# ---- The sections ----


def test_each_fact_has_a_period_and_may_be_left_out(file: Path) -> None:
    loaded = read(file, "[periods]\ncontainers = never\nfqdn = 0.5\n")
    assert loaded.periods == {**PERIODS, "containers": NEVER, "fqdn": 0.5}


@pytest.mark.parametrize(
    "text", ["shutdown log-off", "shutdown, log-off", "shutdown,log-off,", "\n  shutdown\n  log-off", "shutdown\n  ,log-off"]
)
def test_commands_are_named_with_spaces_commas_or_lines_between_them(file: Path, text: str) -> None:
    loaded = read(file, f"[commands]\nallow = {text}\nblock = {text}\n")
    assert loaded.commands_allow == loaded.commands_block == ("shutdown", "log-off")


def test_every_command_may_be_named(file: Path) -> None:
    assert read(file, f"[commands]\nblock = {' '.join(COMMANDS)}\n").commands_block == tuple(COMMANDS)


def test_only_dangerous_commands_may_be_enabled(file: Path) -> None:
    enabled = read(file, "[commands]\nenable = exec, file-read\n").commands_enable
    assert enabled == ("exec", "file-read")
    assert problem_in(file, "[commands]\nenable = shutdown\n") == (
        "[commands] enable: 'shutdown' is not allowed; allowed: names out of "
        "exec, file-read, file-write, set-password, ssh-keys"
    )


def test_files_may_be_read_and_written_below_directories_that_are_named_line_by_line(file: Path) -> None:
    loaded = read(file, "[files]\nread =\n    /var/log/\n    /srv/with a space\nwrite = /srv/../tmp\n")
    assert loaded.files_read == ("/var/log", "/srv/with a space")
    assert loaded.files_write == ("/tmp",)
    for wrong in ("var/log", "~/log"):
        assert problem_in(file, f"[files]\nread = {wrong}\n") == (
            f"[files] read: {wrong!r} is not allowed; allowed: an absolute path"
        )


def test_freezing_has_a_limit_and_a_place_to_note_it(file: Path) -> None:
    loaded = read(file, "[freeze]\nlimit = 30\n")
    assert loaded.freeze_limit == 30.0


def test_the_login_helper_is_a_path_or_none(file: Path) -> None:
    assert read(file, "[commands]\nlogin-helper = /usr/libexec/login\n").commands_login_helper == "/usr/libexec/login"
    assert read(file, "[commands]\nlogin-helper =\n").commands_login_helper is None


def test_commands_and_hooks_have_deadlines_of_their_own(file: Path) -> None:
    loaded = read(file, "[commands]\ndeadline = 1\n[hooks]\ndeadline = 2\ndirectory = /srv/hooks\n")
    assert (loaded.commands_deadline, loaded.hooks_deadline, loaded.hooks_directory) == (1.0, 2.0, "/srv/hooks")


def test_only_the_main_section_can_be_said_on_the_command_line() -> None:
    named = set(re.findall(r"^  --([\w-]+)", options.parser().format_help(), re.MULTILINE))
    main = {setting.name for setting in options.SETTINGS if not setting.section}
    assert named == main | {"version", "show-config", "check", "thaw", "config"}


def test_every_default_is_allowed() -> None:
    for setting in options.SETTINGS:
        assert setting.parse(setting.format(setting.default)) == setting.default, setting.name


# ---- What is shown ----

PATHS = st.text("/abz.%=:[]-é ", min_size=1, max_size=9).map(lambda text: os.path.normpath(f"/a{text}z"))
SECONDS = st.floats(settings.SHORTEST, settings.LONGEST)
NAMES = st.lists(st.sampled_from(sorted(COMMANDS)), max_size=4).map(tuple)
DANGEROUS = st.lists(st.sampled_from(sorted(dangerous())), max_size=4).map(tuple)
PATTERNS = st.lists(st.text("abz*?[].-", min_size=1, max_size=9), max_size=3).map(tuple)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    return Configuration(
        port=tuple(draw(st.lists(PATHS, min_size=1, max_size=3))),
        max_api_version=draw(st.sampled_from([None, *Version])),
        heartbeat=draw(SECONDS),
        port_timeout=draw(SECONDS),
        application=draw(PATTERNS),
        ignore_interface=draw(PATTERNS),
        ignore_file_system=draw(PATTERNS),
        log_level=draw(st.sampled_from(["error", "warning", "info", "debug"])),
        periods={name: draw(SECONDS if name == "capabilities" else SECONDS | st.just(NEVER)) for name in PERIODS},
        commands_allow=draw(NAMES),
        commands_block=draw(NAMES),
        commands_login_helper=draw(st.none() | PATHS),
        commands_deadline=draw(SECONDS),
        hooks_directory=draw(PATHS),
        hooks_deadline=draw(SECONDS),
        commands_enable=draw(DANGEROUS),
        files_read=tuple(draw(st.lists(PATHS, max_size=3))),
        files_write=tuple(draw(st.lists(PATHS, max_size=3))),
        freeze_limit=draw(SECONDS),
    )


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configurations())
def test_what_is_shown_has_the_same_effect_when_it_is_read_again(file: Path, configuration: Configuration) -> None:
    assert read(file, options.show(configuration)) == configuration


def test_the_defaults_are_shown_section_by_section() -> None:
    shown = options.show(load()).splitlines()
    assert [line for line in shown if line.startswith("[")] == [
        *("[guest]", "[periods]", "[commands]"),
        *("[hooks]", "[files]", "[freeze]"),
    ]
    for line in ("heartbeat = 5", "disks-usage = 300", "allow =", "login-helper =", "directory = /etc/vmaccord/hooks.d"):
        assert line in shown


# ---- What a worker does with it ----


def begin(*arguments: str) -> list[Any]:
    reported: list[Any] = []
    options.begin(arguments, reported.append)
    return reported


def reload(*arguments: str) -> Any:
    reported: list[Any] = []
    options.reload(arguments, reported.append)
    (report,) = reported
    return report


def test_the_configuration_to_run_with_is_reported(file: Path) -> None:
    file.write_text("[guest]\nmax-api-version = none\n[periods]\nfqdn = never\n", encoding="utf-8")
    (values,) = begin("--config", str(file), "--heartbeat", "2")
    assert Configuration.from_plain(values) == load("--config", str(file), "--heartbeat", "2")


def test_the_version_names_the_release_and_its_api_versions(capsys: pytest.CaptureFixture[str]) -> None:
    assert begin("--version") == []
    release, api = capsys.readouterr().out.splitlines()
    assert release == f"vmaccord-guest {metadata.version('vmaccord')}"
    assert api == f"guest API versions: 0-{versions.newest()}"


def test_a_release_that_is_not_installed_as_a_distribution_has_a_version_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown(_: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", unknown)
    assert begin("--version") == []
    assert capsys.readouterr().out.startswith("vmaccord-guest (version unknown)\n")


def test_the_version_is_told_whatever_the_configuration_is_like(capsys: pytest.CaptureFixture[str]) -> None:
    assert begin("--version", "--config", NOWHERE) == []


def test_the_configuration_is_shown_instead_of_used(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert begin("--config", os.devnull, "--show-config", "--heartbeat", "2") == []
    shown = capsys.readouterr().out
    assert "heartbeat = 2\n" in shown
    assert read(file, shown) == load("--heartbeat", "2")


def test_a_check_ends_with_what_it_found(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def fake(configuration: Configuration, *_: object) -> Exit:
        checked.append(configuration.heartbeat)
        return Exit.NO_PORT

    monkeypatch.setattr(check, "check", fake)
    with pytest.raises(SystemExit) as ended:
        begin("--config", os.devnull, "--check", "--heartbeat", "2")
    assert ended.value.code == Exit.NO_PORT
    assert checked == [2.0]


class FakeThaw:
    """Thaws what a test says, and keeps for which machine."""

    def __init__(self, thawed: Sequence[str] = (), problems: Sequence[str] = ()) -> None:
        self.machines: list[Machine] = []
        self._told = list(thawed), list(problems)

    def __call__(self, machine: Machine) -> tuple[list[str], list[str]]:
        self.machines.append(machine)
        return self._told


def thaw(*arguments: str) -> Any:
    """The exit status."""
    with pytest.raises(SystemExit) as ended:
        begin("--thaw", *arguments)
    return ended.value.code


def test_what_was_left_frozen_is_thawed_as_it_is_configured(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeThaw(["/", "/srv"])
    monkeypatch.setattr(freezing, "thaw_now", fake)
    file.write_text("[hooks]\ndirectory = /elsewhere\n", encoding="utf-8")
    assert thaw("--config", str(file)) == Exit.OK
    assert [machine.hooks_directory for machine in fake.machines] == ["/elsewhere"]
    assert capsys.readouterr().out == "/: thawed\n/srv: thawed\n"


def test_a_thaw_says_where_nothing_is_noted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(freezing, "thaw_now", lambda _: None)
    assert thaw("--config", os.devnull) == Exit.OK
    assert capsys.readouterr() == ("nothing is noted as frozen\n", "")


def test_a_thaw_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(freezing, "thaw_now", FakeThaw([], ["/srv: no"]))
    assert thaw("--config", os.devnull) == Exit.UNEXPECTED
    assert capsys.readouterr() == ("", "vmaccord-guest: /srv: no\n")


def test_a_configuration_that_can_not_be_used_keeps_nothing_frozen(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeThaw()
    monkeypatch.setattr(freezing, "thaw_now", fake)
    file.write_text("[hooks]\ndirectory = nowhere\n", encoding="utf-8")
    assert thaw("--config", str(file)) == Exit.OK
    assert [machine.hooks_directory for machine in fake.machines] == ["/etc/vmaccord/hooks.d"]
    assert "'nowhere' is not allowed" in capsys.readouterr().err


def test_the_help_lists_every_exit_status_and_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert exits.epilog() in text
    assert "--max-api-version" in text


@pytest.mark.parametrize("wrong", [["--no-such-option"], ["--heartbeat"], ["--heart", "2"]])
def test_a_wrong_command_line_is_said_in_one_line(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin(*wrong)
    assert ended.value.code == Exit.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("vmaccord-guest: ")
    assert wrong[0] in line
    assert line.endswith("; see vmaccord-guest --help")


def test_a_wrong_configuration_is_said_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        begin("--config", os.devnull, "--heartbeat", "often")
    assert ended.value.code == Exit.BAD_CONFIGURATION
    assert capsys.readouterr().err == (
        "vmaccord-guest: --heartbeat: 'often' is not allowed; allowed: a number of seconds from 0.1 to 31536000\n"
    )


def test_a_reload_reports_what_is_there_now_or_what_is_wrong_with_it(file: Path) -> None:
    file.write_text("[guest]\nheartbeat = 7\n", encoding="utf-8")
    arguments = ("--config", str(file), "--log-level", "debug")
    wrong, values = reload(*arguments)
    assert wrong is None
    assert Configuration.from_plain(values) == load(*arguments)
    drop_in(file, "x.conf", "[guest]\nheartbeat = often\n")
    wrong, values = reload(*arguments)
    assert wrong == problem(*arguments)
    assert values is None


# ---- What the agent imports ----


def test_no_module_imports_this_one_but_where_a_worker_comes_by() -> None:
    package = Path(options.__file__).parent
    for path in sorted(package.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            imported = ast.unparse(node) if isinstance(node, (ast.Import, ast.ImportFrom)) else ""
            assert not re.search(r"\boptions\b", imported), path
