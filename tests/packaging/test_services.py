"""Units, the rule of udev and the users fit each other, the programs and the code."""

from __future__ import annotations

import configparser
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from common.statuses import Status
from guest_agent import exits as guest_exits
from guest_agent import options
from guest_agent.commands import Machine
from guest_agent.config import Configuration
from host_agent import config, descriptors, paths
from host_agent import exits as host_exits

from .parts import PACKAGING

UNITS = ["vmaccord-guest-agent", "vmaccord-host-agent"]
RULES = PACKAGING / "udev/70-vmaccord-guest-agent.rules"

#: Becomes its arguments, a command that has the kernel deny what MemoryDenyWriteExecute= does.
WITHOUT_WRITE_EXECUTE = """
import ctypes, os, sys
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1
if ctypes.CDLL(None).prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0):
    sys.exit(print("unknown"))
os.execv(sys.argv[1], sys.argv[1:])
"""

#: Loads the daemon and what it may use, as far as that is there.
LOADS = """
import contextlib, mmap
try:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except PermissionError:
    print("denied")
import asyncinotify
import host_agent.daemon
asyncinotify.Inotify().close()
with contextlib.suppress(ImportError):
    import uvloop
    uvloop.new_event_loop().close()
with contextlib.suppress(ImportError):
    import libvirt
    libvirt.openReadOnly("test:///default").close()
print("loaded")
"""


def unit(name: str) -> str:
    return (PACKAGING / f"systemd/{name}.service").read_text(encoding="utf-8")


def value(name: str, key: str) -> str:
    """What the unit *name* says of *key*, which it says once."""
    (found,) = re.findall(rf"^{key}=(.*)$", unit(name), re.MULTILINE)
    return str(found)


def load_guest() -> Configuration:
    """The guest's defaults."""
    return options.load(options.parser().parse_args(["--config", os.devnull]))


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file system with our units, what they start, and empty targets."""
    units = tmp_path / "usr/lib/systemd/system"
    shutil.copytree(PACKAGING / "systemd", units)
    shutil.copytree(PACKAGING / "launchers", tmp_path / "usr/sbin")
    for name in ("sysinit", "basic", "shutdown", "multi-user"):
        (units / f"{name}.target").write_text("[Unit]\nDescription=Nothing\n", encoding="utf-8")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").touch(mode=0o755)
    return tmp_path


def verify(root: pathlib.Path) -> str:
    """What systemd has to say against the units."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is missing: apt-get install systemd")
    names = [f"{name}.service" for name in UNITS]
    command = ["systemd-analyze", "verify", "--man=no", f"--root={root}", *names]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_systemd_has_nothing_to_say_against_the_units(root: pathlib.Path) -> None:
    assert verify(root) == ""


def test_systemd_would_say_it(root: pathlib.Path) -> None:
    path = root / "usr/lib/systemd/system/vmaccord-guest-agent.service"
    path.write_text(unit("vmaccord-guest-agent").replace("RestartSec", "RestartSeconds"), encoding="utf-8")
    assert "RestartSeconds" in verify(root)


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("vmaccord-guest-agent", (guest_exits.Exit.USAGE, guest_exits.Exit.BAD_CONFIGURATION)),
        ("vmaccord-host-agent", (host_exits.Exit.USAGE, host_exits.Exit.BAD_CONFIGURATION)),
    ],
)
def test_a_service_is_not_restarted_when_that_can_t_help(name: str, statuses: tuple[Status, ...]) -> None:
    assert value(name, "RestartPreventExitStatus") == " ".join(str(status.value) for status in statuses)
    assert value(name, "Restart") == "always"


def test_udev_has_nothing_to_say_against_the_rule() -> None:
    udevadm = shutil.which("udevadm")
    if udevadm is None or b"verify" not in subprocess.run([udevadm, "--help"], capture_output=True, check=True).stdout:
        pytest.skip("udevadm has no verify: it is part of systemd 254 and newer")
    checked = subprocess.run([udevadm, "verify", str(RULES)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rule_names_the_ports_of_the_agent_in_its_order() -> None:
    (ports,) = (setting.default for setting in options.SETTINGS if setting.name == "port")
    rules = RULES.read_text(encoding="utf-8")
    assert re.findall(r'ATTR\{name\}=="([^"]+)"', rules) == [pathlib.PurePath(port).name for port in ports]
    preferred, _ = re.findall(r"^ATTR.*$", rules, re.MULTILINE)
    assert "link_priority=10" in preferred


def test_the_rule_makes_the_device_to_which_the_unit_is_bound() -> None:
    (link,) = re.findall(r'SYMLINK\+="([^"]+)"', RULES.read_text(encoding="utf-8"))
    device = f"dev-{link.replace('/', '-')}.device"
    assert value("vmaccord-guest-agent", "BindsTo") == device
    assert f"After={device}" in unit("vmaccord-guest-agent").splitlines()
    assert 'ENV{SYSTEMD_WANTS}+="vmaccord-guest-agent.service"' in RULES.read_text(encoding="utf-8")


def test_only_the_port_starts_the_agent() -> None:
    assert "[Install]" not in unit("vmaccord-guest-agent").splitlines()
    assert "[Install]" in unit("vmaccord-host-agent").splitlines()


@pytest.mark.parametrize("name", UNITS)
def test_nothing_is_both_set_and_said_not_to_be(name: str) -> None:
    before, _, after = unit(name).partition("# Not set, and why:")
    assert after
    said = set(re.findall(r"(\w+)=(?![~@\w])", after))
    assert said
    assert not said & set(re.findall(r"^(\w+)=", before, re.MULTILINE)) - {"SystemCallFilter"}


def test_the_daemon_runs_as_the_user_that_is_made_and_that_the_operators_command_trusts() -> None:
    users = (PACKAGING / "sysusers/vmaccord-host-agent.conf").read_text(encoding="utf-8")
    (made,) = re.findall(r"^u (\S+) ", users, re.MULTILINE)
    assert value("vmaccord-host-agent", "User") == value("vmaccord-host-agent", "Group") == made == paths.SERVICE_USER


def test_the_daemon_is_given_as_many_descriptors_as_guests_are_promised_to_be_served() -> None:
    assert int(value("vmaccord-host-agent", "LimitNOFILE")) >= 10_000 + descriptors.RESERVE


def test_the_daemon_is_given_the_time_to_drain_and_to_keep_its_state() -> None:
    (drain,) = (setting.default for setting in config.SETTINGS if setting.name == "drain")
    assert float(value("vmaccord-host-agent", "TimeoutStopSec")) >= 2 * drain


def test_the_daemon_loads_nothing_that_must_write_and_execute_the_same_memory() -> None:
    assert value("vmaccord-host-agent", "MemoryDenyWriteExecute") == "yes"
    command = [sys.executable, "-c", WITHOUT_WRITE_EXECUTE, sys.executable, "-c", LOADS]
    ran = subprocess.run(command, cwd=PACKAGING.parent, capture_output=True, text=True, check=False)
    if ran.stdout == "unknown\n":
        pytest.skip("the kernel can't deny it: it is older than 6.3")
    assert (ran.stdout, ran.returncode) == ("denied\nloaded\n", 0), ran.stderr


def test_what_the_agent_had_frozen_is_thawed_however_it_ended() -> None:
    program = value("vmaccord-guest-agent", "ExecStart")
    assert value("vmaccord-guest-agent", "ExecStopPost") == f"{program} --thaw"
    assert options.parser().parse_args(["--thaw"]).thaw


def test_what_the_agent_noted_as_frozen_outlives_it_in_the_directory_where_it_is_looked_for() -> None:
    assert f"/run/{value('vmaccord-guest-agent', 'RuntimeDirectory')}" == Machine._field_defaults["state_directory"]
    assert value("vmaccord-guest-agent", "RuntimeDirectoryPreserve") == "yes"
    assert value("vmaccord-guest-agent", "RuntimeDirectoryMode") == "0700"


def test_the_agent_may_freeze_and_thaw_and_does_it_where_the_machine_mounts() -> None:
    text = unit("vmaccord-guest-agent")
    settings, _, _ = text.partition("# Not set, and why:")
    assert value("vmaccord-guest-agent", "CapabilityBoundingSet").startswith("~")
    assert "CAP_SYS_ADMIN" not in value("vmaccord-guest-agent", "CapabilityBoundingSet")
    assert not {"ioctl", "@basic-io", "@file-system"} & set(value("vmaccord-guest-agent", "SystemCallFilter")[1:].split())
    namespaces = (
        "PrivateTmp|PrivateDevices|PrivateMounts|Protect(System|Home|Proc|Kernel\\w+|ControlGroups)|R\\w+Paths|MountFlags"
    )
    assert not re.findall(rf"^(?:{namespaces})=", settings, re.MULTILINE)


def test_an_agent_that_thaws_its_own_disk_does_not_wait_to_write_its_byte_code() -> None:
    launcher = (PACKAGING / "launchers/vmaccord-guest").read_text(encoding="utf-8")
    before, _, _ = launcher.partition("\nfrom guest_agent")
    assert "\nsys.dont_write_bytecode = True\n" in before


def test_the_launchers_start_what_the_wheel_starts() -> None:
    wheel = configparser.ConfigParser()
    wheel.read(PACKAGING.parent / "setup.cfg", encoding="utf-8")
    for line in wheel["options.entry_points"]["console_scripts"].split("\n")[1:]:
        name, target = line.split(" = ")
        module, function = target.split(":")
        launcher = (PACKAGING / "launchers" / name).read_text(encoding="utf-8")
        assert launcher.startswith("#!/usr/bin/python3 -I\n")
        assert f"from {module} import {function}\n\nsys.exit({function}())\n" in launcher
        assert re.findall(r"^import (.*)$", launcher, re.MULTILINE) == ["sys"]
