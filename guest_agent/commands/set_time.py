"""set-time: the clock is set, to what the host says or from the hardware clock.

What the host says is written to the hardware clock as well, so that the next start begins with it. Whether that clock runs
on UTC or on local time stands in ``/etc/adjtime``. It shows whole seconds only: half a one is added to what it shows, as the
kernel itself does when it starts, which is wrong by half a second at most.
"""

from __future__ import annotations

import calendar
import errno
import fcntl
import os
import struct
import time
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional

from common.messages import SetTime
from guest_agent.collectors.files import read_optional
from guest_agent.collectors.timezone import timezone

from . import CommandFailed, Machine

#: Where the hardware clock is, relative to the root; the first that exists counts.
DEVICES = ("dev/rtc0", "dev/rtc")

#: Says in its third line whether the hardware clock runs on UTC or on local time; relative to the root.
ADJTIME = "etc/adjtime"

_SECOND = 1_000_000_000

#: From 1990 on, which every hardware clock can show and no running guest is before.
EARLIEST = 631_152_000 * _SECOND

#: The kernel's clock must be able to go on for 30 years before its nanoseconds overflow.
LATEST = 8_277_292_036 * _SECOND - 1

_OUT_OF_BOUNDS = "a clock can only be set to a time from 1990 to 2232"

#: The bits of a request that say which way the time goes; some architectures have them the other way round.
_REVERSED = os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc"))
_TO_US, _TO_KERNEL = (0x40000000, 0x80000000) if _REVERSED else (0x80000000, 0x40000000)
RTC_RD_TIME = _TO_US | 0x247009
RTC_SET_TIME = _TO_KERNEL | 0x24700A

#: What both take: second, minute, hour, day of the month, month from 0, years since 1900, day of the week, day of the year
#: from 0, daylight saving.
_FIELDS = struct.Struct("9i")


def _ioctl(descriptor: int, request: int, argument: bytes) -> bytes:
    return fcntl.ioctl(descriptor, request, argument)


class Kernel(NamedTuple):
    """The calls that show and set clocks.

    :ivar gettime: gives the nanoseconds that a clock shows.
    :ivar settime: sets a clock to nanoseconds.
    :ivar ioctl: asks the device behind a descriptor.
    """

    gettime: Callable[[int], int] = time.clock_gettime_ns
    settime: Callable[[int, int], object] = time.clock_settime_ns
    ioctl: Callable[[int, int, bytes], bytes] = _ioctl


KERNEL = Kernel()


def available(machine: Machine) -> Optional[str]:
    """None where this is root."""
    return None if os.geteuid() == machine.owner else "only root may set the clock; run the agent as root"


def run(machine: Machine, message: SetTime, kernel: Kernel = KERNEL) -> Mapping[str, Any]:
    """Set the clock.

    :returns: ``epoch_ns``, what it shows now, and ``step_ns``, by how much it jumped; where the host gave the time also
        ``hardware_clock``: whether that was set, too, which is False where there is none.
    :raises CommandFailed: the time is out of bounds, it can't be set, or the hardware clock can't be.
    """
    device = _device(machine)
    if message.epoch_ns is None:
        if device is None:
            raise CommandFailed(
                f"there is no hardware clock (no /{' and no /'.join(DEVICES)}); say what time it is, as epoch_ns"
            )
        return _set(_shown_by(device, machine, kernel), kernel)
    if not EARLIEST <= message.epoch_ns <= LATEST:
        raise CommandFailed.invalid(f"{_OUT_OF_BOUNDS}; give nanoseconds since 1970")
    result = _set(message.epoch_ns, kernel)
    if device is None:
        return {**result, "hardware_clock": False}
    try:
        _set_hardware_clock(device, machine, kernel)
    except (OSError, ValueError) as error:
        sentence = f"the clock was set, but the hardware clock was not: {_why(error)}"
        raise CommandFailed(sentence, {**result, "hardware_clock": False}) from None
    return {**result, "hardware_clock": True}


def _device(machine: Machine) -> Optional[str]:
    paths = (os.path.join(machine.root, device) for device in DEVICES)
    return next(filter(os.path.exists, paths), None)


def _set(epoch_ns: int, kernel: Kernel) -> dict[str, Any]:
    ahead_before = _ahead(kernel)
    try:
        kernel.settime(time.CLOCK_REALTIME, epoch_ns)
    except (OSError, OverflowError) as error:
        raise CommandFailed(f"the kernel does not let its clock be set: {_why(error)}") from None
    return {"epoch_ns": kernel.gettime(time.CLOCK_REALTIME), "step_ns": _ahead(kernel) - ahead_before}


def _ahead(kernel: Kernel) -> int:
    """How far the clock is ahead of one that nobody can set."""
    return kernel.gettime(time.CLOCK_REALTIME) - kernel.gettime(time.CLOCK_BOOTTIME)


# ---- The hardware clock ----


def _shown_by(device: str, machine: Machine, kernel: Kernel) -> int:
    """What the hardware clock shows, in nanoseconds since the epoch.

    :raises CommandFailed: it can't be read, or it does not go.
    """
    try:
        second, minute, hour, day, month, year, *_ = _FIELDS.unpack(_ask(device, kernel, RTC_RD_TIME, bytes(_FIELDS.size)))
        shown = calendar.timegm((year + 1900, month + 1, day, hour, minute, second))
        if _on_local_time(machine):
            # The distance is told for a time in UTC: the second answer is for one that the first has brought close.
            about = shown - _distance(machine, shown)
            shown -= _distance(machine, about)
    except (OSError, ValueError, OverflowError) as error:
        raise CommandFailed(f"the hardware clock can't be read: {_why(error)}") from None
    epoch_ns = shown * _SECOND + _SECOND // 2
    if not EARLIEST <= epoch_ns <= LATEST:
        raise CommandFailed(f"{_OUT_OF_BOUNDS}, and the hardware clock shows another; set it first, by epoch_ns")
    return epoch_ns


def _set_hardware_clock(device: str, machine: Machine, kernel: Kernel) -> None:
    """Have the hardware clock show what the kernel's does.

    :raises OSError: it can't be set, or the time zone can't be read.
    :raises ValueError: the time zone can't be read.
    """
    seconds = kernel.gettime(time.CLOCK_REALTIME) // _SECOND
    if _on_local_time(machine):
        seconds += _distance(machine, seconds)
    shown = time.gmtime(seconds)
    weekday = (shown.tm_wday + 1) % 7  # which begins with Sunday here
    day_of_year = shown.tm_yday - 1
    _ask(
        device,
        kernel,
        RTC_SET_TIME,
        _FIELDS.pack(
            *(shown.tm_sec, shown.tm_min, shown.tm_hour, shown.tm_mday, shown.tm_mon - 1, shown.tm_year - 1900),
            *(weekday, day_of_year, 0),
        ),
    )


def _ask(device: str, kernel: Kernel, request: int, argument: bytes) -> bytes:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return kernel.ioctl(descriptor, request, argument)
    finally:
        os.close(descriptor)


def _on_local_time(machine: Machine) -> bool:
    return read_optional(machine.root, ADJTIME).splitlines()[2:3] == ["LOCAL"]


def _distance(machine: Machine, seconds: int) -> int:
    """Seconds east of UTC at the time *seconds*."""
    return timezone(machine.root, seconds).offset * 60


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.EBUSY:
        return "another program uses it; try again in a moment, or end what keeps it open"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
