"""set-time: on clocks of our own. This machine's clock is never set: where the real call is made, it is made by nobody."""

from __future__ import annotations

import calendar
import errno
import os
import platform
import struct
import time
from pathlib import Path
from typing import Optional

import pytest

from common.messages import Code, SetTime
from guest_agent.commands import COMMANDS, CommandFailed, Machine, set_time

from .forked import become_nobody, in_worker, only_root

SECOND = 1_000_000_000

#: 2024-07-01 12:00:00 and 2024-01-01 12:00:00, in UTC.
SUMMER, WINTER = 1_719_835_200, 1_704_110_400

LOCAL = "0.0 0 0.0\n0\nLOCAL\n"
UTC = "0.0 0 0.0\n0\nUTC\n"


class Clocks:
    """A machine's clocks.

    :ivar real: what the kernel's clock shows, in nanoseconds since the epoch.
    :ivar running: what the one shows that can't be set, in nanoseconds.
    :ivar hardware: the fields of the hardware clock, in the order of the kernel's structure.
    :ivar refusal: why the kernel's clock can't be set.
    :ivar hardware_refusal: why the hardware clock can't be asked.
    :ivar asked: the devices that were asked, and for what.
    """

    def __init__(self) -> None:
        self.real = WINTER * SECOND
        self.running = 5000 * SECOND
        self.hardware = fields(SUMMER)
        self.refusal: Optional[Exception] = None
        self.hardware_refusal: Optional[OSError] = None
        self.asked: list[tuple[str, int]] = []

    @property
    def kernel(self) -> set_time.Kernel:
        return set_time.Kernel(self.gettime, self.settime, self.ioctl)

    def gettime(self, clock: int) -> int:
        return {time.CLOCK_REALTIME: self.real, time.CLOCK_BOOTTIME: self.running}[clock]

    def settime(self, clock: int, nanoseconds: int) -> None:
        """It takes a while."""
        assert clock == time.CLOCK_REALTIME
        if self.refusal is not None:
            raise self.refusal
        self.real = nanoseconds + SECOND
        self.running += SECOND

    def ioctl(self, descriptor: int, request: int, argument: bytes) -> bytes:
        self.asked.append((os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")), request))
        if self.hardware_refusal is not None:
            raise self.hardware_refusal
        if request == set_time.RTC_SET_TIME:
            self.hardware = struct.unpack("9i", argument)
        return struct.pack("9i", *self.hardware)


def fields(seconds: int) -> tuple[int, ...]:
    """A time in UTC as the kernel's structure has it."""
    shown = time.gmtime(seconds)
    date = (shown.tm_mday, shown.tm_mon - 1, shown.tm_year - 1900)
    return (shown.tm_sec, shown.tm_min, shown.tm_hour, *date, (shown.tm_wday + 1) % 7, shown.tm_yday - 1, 0)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def device(root: Path) -> Path:
    """The machine has a hardware clock."""
    path = root / "dev" / "rtc0"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.fixture
def etc(root: Path) -> Path:
    """The machine has a time zone: one hour east of UTC, two in summer."""
    path = root / "etc"
    path.mkdir()
    counts = (0, 0, 0, 1, 1, 4)
    types = struct.pack(">BiBB4s", 0, 3600, 0, 0, b"ABC\0")
    blocks = [struct.pack(">4sc15x6I", b"TZif", b"2", *counts) + struct.pack(size, 0) + types for size in (">i", ">q")]
    (path / "localtime").write_bytes(b"".join(blocks) + b"\nCET-1CEST,M3.5.0,M10.5.0/3\n")
    return path


def failure(machine: Machine, clocks: Clocks, epoch_ns: Optional[int] = None) -> CommandFailed:
    with pytest.raises(CommandFailed) as raised:
        set_time.run(machine, SetTime(epoch_ns=epoch_ns), clocks.kernel)
    return raised.value


# ---- To what the host says ----


@pytest.mark.usefixtures("device")
def test_the_clock_is_set_to_the_nanosecond_and_how_far_it_jumped_is_told(machine: Machine, clocks: Clocks) -> None:
    wanted = SUMMER * SECOND + 123_456_789
    result = set_time.run(machine, SetTime(epoch_ns=wanted), clocks.kernel)
    step = wanted - WINTER * SECOND
    assert result == {"epoch_ns": wanted + SECOND, "step_ns": step, "hardware_clock": True}


@pytest.mark.usefixtures("device")
def test_a_jump_back_is_negative(machine: Machine, clocks: Clocks) -> None:
    assert set_time.run(machine, SetTime(epoch_ns=(WINTER - 7) * SECOND), clocks.kernel)["step_ns"] == -7 * SECOND


@pytest.mark.usefixtures("device", "etc")
@pytest.mark.parametrize("adjtime", [None, "", UTC, "LOCAL\n", "LOCAL\nLOCAL\n", "\x00\xff"])
def test_the_hardware_clock_is_set_too_and_shows_utc_unless_noted_otherwise(
    machine: Machine, clocks: Clocks, etc: Path, adjtime: Optional[str]
) -> None:
    if adjtime is not None:
        (etc / "adjtime").write_text(adjtime, "utf-8")
    set_time.run(machine, SetTime(epoch_ns=(SUMMER + 41) * SECOND), clocks.kernel)
    assert clocks.hardware == fields(SUMMER + 42)
    assert clocks.asked == [("rtc0", set_time.RTC_SET_TIME)]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("now", "hours"), [(WINTER, 1), (SUMMER, 2)])
def test_a_hardware_clock_on_local_time_shows_that(
    machine: Machine, clocks: Clocks, etc: Path, now: int, hours: int
) -> None:
    (etc / "adjtime").write_text(LOCAL, "ascii")
    set_time.run(machine, SetTime(epoch_ns=(now - 1) * SECOND), clocks.kernel)
    assert clocks.hardware == fields(now + hours * 3600)


def test_without_a_hardware_clock_the_kernels_is_set_and_this_is_told(machine: Machine, clocks: Clocks) -> None:
    assert set_time.run(machine, SetTime(epoch_ns=SUMMER * SECOND), clocks.kernel)["hardware_clock"] is False
    assert clocks.real == (SUMMER + 1) * SECOND


def test_the_first_device_counts_and_the_other_does_as_well(machine: Machine, clocks: Clocks, device: Path) -> None:
    device.rename(device.with_name("rtc"))
    set_time.run(machine, SetTime(epoch_ns=SUMMER * SECOND), clocks.kernel)
    device.touch()
    set_time.run(machine, SetTime(epoch_ns=SUMMER * SECOND), clocks.kernel)
    assert [name for name, _ in clocks.asked] == ["rtc", "rtc0"]


@pytest.mark.usefixtures("device")
def test_a_hardware_clock_that_can_not_be_set_is_a_failure_that_says_what_was_done(machine: Machine, clocks: Clocks) -> None:
    clocks.hardware_refusal = OSError(errno.EINVAL, "Invalid argument")
    failed = failure(machine, clocks, SUMMER * SECOND)
    assert str(failed) == "the clock was set, but the hardware clock was not: Invalid argument"
    assert failed.members == {
        "epoch_ns": (SUMMER + 1) * SECOND,
        "step_ns": (SUMMER - WINTER) * SECOND,
        "hardware_clock": False,
    }
    assert failed.code is Code.FAILED


@pytest.mark.usefixtures("device")
def test_without_a_readable_zone_a_clock_on_local_time_is_left_alone(machine: Machine, clocks: Clocks, etc: Path) -> None:
    (etc / "adjtime").write_text(LOCAL, "ascii")
    (etc / "localtime").write_text("no zone", "ascii")
    assert "the hardware clock was not: " in str(failure(machine, clocks, SUMMER * SECOND))
    assert "can't be read: " in str(failure(machine, clocks))
    assert clocks.hardware == fields(SUMMER)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("epoch_ns", [set_time.EARLIEST, set_time.LATEST])
def test_a_time_at_the_bounds_is_set(machine: Machine, clocks: Clocks, epoch_ns: int) -> None:
    assert set_time.run(machine, SetTime(epoch_ns=epoch_ns), clocks.kernel)["epoch_ns"] == epoch_ns + SECOND


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("epoch_ns", [0, set_time.EARLIEST - 1, set_time.LATEST + 1, 10**5000], ids=range(4))
def test_a_time_that_can_only_be_a_mistake_is_refused(machine: Machine, clocks: Clocks, epoch_ns: int) -> None:
    failed = failure(machine, clocks, epoch_ns)
    assert "from 1990 to 2232; give nanoseconds since 1970" in str(failed)
    assert failed.code is Code.INVALID_ARGUMENTS
    assert (clocks.real, clocks.asked) == (WINTER * SECOND, [])


def test_the_bounds_are_those_years() -> None:
    assert calendar.timegm((1990, 1, 1, 0, 0, 0)) * SECOND == set_time.EARLIEST
    assert time.gmtime(set_time.LATEST // SECOND).tm_year == 2232


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("refusal", "why"),
    [
        (PermissionError(errno.EPERM, "Operation not permitted"), "Operation not permitted"),
        (OverflowError("timestamp out of range for platform time_t"), "timestamp out of range for platform time_t"),
    ],
)
def test_a_kernel_that_refuses_is_a_failure_and_the_hardware_clock_is_left_alone(
    machine: Machine, clocks: Clocks, refusal: Exception, why: str
) -> None:
    clocks.refusal = refusal
    assert str(failure(machine, clocks, SUMMER * SECOND)) == f"the kernel does not let its clock be set: {why}"
    assert clocks.asked == []


# ---- From the hardware clock ----


@pytest.mark.usefixtures("device", "etc")
def test_the_clock_is_set_to_the_middle_of_the_second_that_the_hardware_clock_shows(
    machine: Machine, clocks: Clocks
) -> None:
    result = set_time.run(machine, SetTime(), clocks.kernel)
    wanted = SUMMER * SECOND + SECOND // 2
    assert result == {"epoch_ns": wanted + SECOND, "step_ns": wanted - WINTER * SECOND}
    assert clocks.asked == [("rtc0", set_time.RTC_RD_TIME)]
    assert clocks.hardware == fields(SUMMER)


#: The last hour of each kind of time, and the first: 2024-03-31 and 2024-10-27, 01:00 UTC.
TO_SUMMER, TO_WINTER = 1_711_846_800, 1_729_990_800


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("now", "hours"),
    [(WINTER, 1), (SUMMER, 2), (TO_SUMMER - 1, 1), (TO_SUMMER, 2), (TO_WINTER - 3601, 2), (TO_WINTER + 3600, 1)],
)
def test_a_hardware_clock_on_local_time_is_read_as_that(
    machine: Machine, clocks: Clocks, etc: Path, now: int, hours: int
) -> None:
    (etc / "adjtime").write_text(LOCAL, "ascii")
    clocks.hardware = fields(now + hours * 3600)
    set_time.run(machine, SetTime(), clocks.kernel)
    assert clocks.real == now * SECOND + SECOND // 2 + SECOND


def test_without_a_hardware_clock_the_time_must_be_said(machine: Machine, clocks: Clocks) -> None:
    sentence = "there is no hardware clock (no /dev/rtc0 and no /dev/rtc); say what time it is, as epoch_ns"
    assert str(failure(machine, clocks)) == sentence


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (fields(0), "the hardware clock shows another; set it first, by epoch_ns"),
        ((0, 0, 0, 1, 99, 124, 0, 0, 0), "the hardware clock can't be read"),
        ((0, 0, 0, 1, 0, 2**31 - 1, 0, 0, 0), "the hardware clock can't be read"),
        ((0, 0, 0, 1, 0, -(2**31), 0, 0, 0), "the hardware clock can't be read"),
        ((2**31 - 1, 2**31 - 1, 2**31 - 1, 2**31 - 1, 0, 124, 0, 0, 0), "the hardware clock"),
    ],
)
def test_a_hardware_clock_that_shows_no_sensible_time_is_not_believed(
    machine: Machine, clocks: Clocks, shown: tuple[int, ...], why: str
) -> None:
    clocks.hardware = shown
    assert why in str(failure(machine, clocks))
    assert clocks.real == WINTER * SECOND


@pytest.mark.usefixtures("device")
def test_a_hardware_clock_that_can_not_be_asked_is_a_failure(machine: Machine, clocks: Clocks) -> None:
    clocks.hardware_refusal = OSError(errno.EIO, "Input/output error")
    assert str(failure(machine, clocks)) == "the hardware clock can't be read: Input/output error"


@pytest.mark.usefixtures("device")
def test_a_hardware_clock_that_somebody_else_uses_is_said_with_what_to_do(machine: Machine, clocks: Clocks) -> None:
    clocks.hardware_refusal = OSError(errno.EBUSY, "Device or resource busy")
    why = "another program uses it; try again in a moment, or end what keeps it open"
    assert str(failure(machine, clocks)) == f"the hardware clock can't be read: {why}"


# ---- The real kernel ----


@pytest.mark.usefixtures("device")
def test_what_is_no_clock_is_asked_for_real_and_can_not_be_read(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="the hardware clock can't be read: Inappropriate ioctl for device"):
        COMMANDS["set-time"].run(machine, SetTime())


@only_root
def test_the_kernel_lets_nobody_set_its_clock(machine: Machine) -> None:
    def told() -> str:
        become_nobody()
        with pytest.raises(CommandFailed) as raised:
            COMMANDS["set-time"].run(machine, SetTime(epoch_ns=set_time.EARLIEST))
        return str(raised.value)

    assert in_worker(told) == "the kernel does not let its clock be set: Operation not permitted"


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="has numbers of its own")
def test_the_requests_are_those_of_the_kernels_headers() -> None:
    assert (set_time.RTC_RD_TIME, set_time.RTC_SET_TIME) == (0x80247009, 0x4024700A)


def test_it_is_available_to_root(machine: Machine) -> None:
    assert set_time.available(machine) is None
    other = machine._replace(owner=os.geteuid() + 1)
    assert set_time.available(other) == "only root may set the clock; run the agent as root"
