"""A virtual machine that needs no hypervisor: QEMU translates every instruction (TCG).

It has its own kernel (Debian's for clouds), and so it has cgroup v2, unlike the lab's containers on
some computers. Its disk is the lab's image with that kernel added. SSH reaches it through a port of
the loopback. Its own address is 10.0.2.15, the address in QEMU's user network.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from provision.local.progress import Silent
from provision.machines import container_engine, image
from provision.machines.ssh_keys import new_key
from tests.aws import free_port

PROGRAM = "qemu-system-x86_64"
NAME = "q1"
ADDRESS = "10.0.2.15"
NETWORK = f"""\
[Match]
Name=eth0
[Network]
Address={ADDRESS}/24
Gateway=10.0.2.2
"""


@dataclass(frozen=True)
class Ways:
    """The SSH port of the machine, and the output of its console."""

    port: int
    key: Path
    host_key: str
    console: Path


def recipe(base: str) -> image.Recipe:
    """The lab's image with a kernel, and without the lab's changes for containers."""
    return image.Recipe(
        kind="full",
        base=base,
        packages=("initramfs-tools", "linux-image-cloud-amd64", "zstd"),
        files={"/etc/systemd/network/10-eth0.network": NETWORK},
        commands=(
            f"systemctl unmask {' '.join(image.MASKED)}",
            "systemctl disable rshared.service",
            "systemctl enable systemd-networkd.service",
            "rm -f /etc/sysctl.d/*.conf",
        ),
    )


def make_disk(directory: Path) -> None:
    """Make `disk`, `kernel` and `initrd` in the directory, and the keys `id` and `host`."""
    engine = container_engine.working()
    made = recipe(image.ensure(engine, "full", Silent()))
    if not engine.has_image(made.tag):
        image.build(engine, made, made.base, lambda _: None)
    container = engine.run("create", made.tag).strip()
    root = directory / "root"
    root.mkdir()
    try:
        engine.run("export", f"--output={directory / 'root.tar'}", container, timeout=600)
    finally:
        engine.run("rm", container)
    tar = ("tar", "--numeric-owner", "-C", root, "-xpf", directory / "root.tar")
    subprocess.run(tar, check=True)
    for name in ("id", "host"):
        key = new_key()
        (directory / name).touch(mode=0o600)
        (directory / name).write_bytes(key.private)
        (directory / f"{name}.pub").write_text(f"{key.public}\n")
    ssh = root / "etc/ssh"
    shutil.copy(directory / "host", ssh / "ssh_host_ed25519_key")
    shutil.copy(directory / "host.pub", ssh / "ssh_host_ed25519_key.pub")
    shutil.copy(directory / "id.pub", ssh / "authorized_keys.d/root")
    (ssh / "authorized_keys.d/root").chmod(0o644)
    (root / "etc/hostname").write_text(f"{NAME}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {NAME}\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("nameserver 10.0.2.3\n")
    (root / "etc/fstab").write_text("/dev/vda / ext4 defaults 0 0\n")
    for name, pattern in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        (found,) = (root / "boot").glob(pattern)
        shutil.copy(found, directory / name)
    disk = directory / "disk"
    subprocess.run(("mke2fs", "-q", "-t", "ext4", "-d", root, disk, "20G"), check=True)
    shutil.rmtree(root)
    (directory / "root.tar").unlink()


@contextmanager
def machine(directory: Path, *, memory: int = 4096, cpus: int = 2) -> Iterator[Ways]:
    """Run a machine until the block ends. After that, only the directory is left.

    Args:
        memory: MiB.
    """
    make_disk(directory)
    port = free_port()
    console = directory / "console"
    with subprocess.Popen(
        (
            *(PROGRAM, "-accel", "tcg,thread=multi", "-cpu", "max"),
            *("-smp", str(cpus), "-m", str(memory)),
            *("-kernel", directory / "kernel", "-initrd", directory / "initrd"),
            *("-append", "root=/dev/vda rw console=ttyS0 net.ifnames=0 quiet"),
            *("-drive", f"file={directory / 'disk'},format=raw,if=virtio,cache=unsafe"),
            *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22"),
            *("-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"),
            *("-display", "none", "-serial", f"file:{console}"),
        )
    ) as process:
        try:
            key = (directory / "host.pub").read_text().strip()
            yield Ways(port, directory / "id", key, console)
        finally:
            process.terminate()
