"""The guest's kernel: Debian's for clouds, and drivers of it that an initramfs brings because there is nothing else yet."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence

from . import packages

#: What makes the other virtio drivers work, in this order; the Debian kernel has none of it built in.
VIRTIO = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci")

_NEWEST = "linux-image-cloud-amd64"


def package() -> str:
    """The name of the package that has the newest kernel.

    :raises packages.Unavailable: apt knows none.
    """
    return packages.dependency(_NEWEST, "linux-image-.*")


def pick(unpacked: pathlib.Path, drivers: Sequence[str], part: pathlib.Path) -> None:
    """Move the kernel and *drivers* out of the *unpacked* package: the kernel into *part*, the drivers into its root.

    :raises packages.Unavailable: the package has another layout.
    """
    directory = part / "root/lib/modules"
    directory.mkdir(parents=True)
    for position, name in enumerate(drivers):
        driver = _only(unpacked.glob(f"lib/modules/*/kernel/**/{name}.ko"), name)
        driver.rename(directory / f"{position}-{name}.ko")
    _only(unpacked.glob("boot/vmlinuz-*"), "kernel").rename(part / "kernel")


def _only(found: Iterable[pathlib.Path], what: str) -> pathlib.Path:
    for path in found:
        return path
    raise packages.Unavailable(f"the kernel's package has no {what}: use Debian 12, or name an image of your own")
