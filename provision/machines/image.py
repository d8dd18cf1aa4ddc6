"""The image of the lab's machines: its recipe as data, and its build, which runs once.

`bare` has only what clusterctl needs on a machine: systemd, sshd and a user who may become root.
`full` is built on `bare` and has the distribution's packages that the deploys would install.
The name of an image contains the hash of its recipe, so a changed recipe gives a new image.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from provision.local.progress import Progress
from provision.machines.container_engine import Engine, follow
from provision.model.commands import shell
from provision.model.errors import MachinesError

Kind = Literal["bare", "full"]

SUITE = "bookworm"
PULLED_BASE = "docker.io/library/debian:12-slim"
REPOSITORY = "localhost/clusterctl-machine"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
ADMIN = "admin"

# sshd reads these files as the user who logs in. So root owns them and every user can read them.
AUTHORIZED_KEYS = "/etc/ssh/authorized_keys.d"

MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dev-hugepages.mount",
    "e2scrub_all.timer",
    "fstrim.timer",
    "getty.target",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-logind.service",
    "systemd-modules-load.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
)


@dataclass(frozen=True)
class Recipe:
    """The contents of an image, as data.

    Attributes:
        base: tag of the image on which this one is built; empty: a plain Debian.
        files: path -> content; mode 0644, owner root.
        commands: POSIX sh, run after the packages are installed.
    """

    kind: Kind
    packages: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    commands: tuple[str, ...] = ()
    base: str = ""

    @property
    def tag(self) -> str:
        content = json.dumps([self.base, dict(self.files), containerfile(self)])
        return f"{REPOSITORY}:{self.kind}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def containerfile(recipe: Recipe) -> str:
    install = f"apt-get install --yes --no-install-recommends {' '.join(recipe.packages)}"
    steps = (
        "set -eu",
        "export DEBIAN_FRONTEND=noninteractive",
        # No service starts while the image is built. Machines do not have this file.
        r"printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d",
        "chmod 755 /usr/sbin/policy-rc.d",
        "rm -f /etc/apt/sources.list",  # debootstrap's file; the recipe's is in sources.list.d
        "apt-get update",
        install,
        *recipe.commands,
        "rm -f /usr/sbin/policy-rc.d /etc/ssh/ssh_host_*",
        "apt-get clean",
        "rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log",
        # systemd makes an ID for each machine when it boots, unless D-Bus already has one.
        "rm -f /var/lib/dbus/machine-id",
        ": > /etc/machine-id",
    )
    script = "; \\\n    ".join(steps)
    return f'ARG BASE\nFROM ${{BASE}}\nCOPY rootfs/ /\nRUN {script}\nCMD ["/sbin/init"]\n'


def bare(mirror: str) -> Recipe:
    return Recipe(
        kind="bare",
        packages=(
            "ca-certificates",
            "dbus",
            "iproute2",
            "kmod",
            "openssh-server",
            "procps",
            "sudo",
            "systemd",
            "systemd-sysv",
        ),
        files={
            "/etc/apt/sources.list.d/debian.sources": apt_sources(mirror),
            f"/etc/sudoers.d/{ADMIN}": f"{ADMIN} ALL=(ALL:ALL) NOPASSWD: ALL\n",
            "/etc/ssh/sshd_config.d/50-machine.conf": (
                "HostKey /etc/ssh/ssh_host_ed25519_key\n"
                f"AuthorizedKeysFile {AUTHORIZED_KEYS}/%u .ssh/authorized_keys\n"
                "PasswordAuthentication no\n"
                "PermitRootLogin no\n"
            ),
            # All machines share the kernel of the operator's machine, and would copy its log.
            "/etc/systemd/journald.conf.d/50-machine.conf": (
                "[Journal]\nReadKMsg=no\nAudit=no\nRuntimeMaxUse=64M\n"
            ),
            # Mounts of pods need this. systemd does it by itself, but not in a container.
            "/etc/systemd/system/rshared.service": (
                "[Unit]\n"
                "Description=Shared mount propagation\n"
                "DefaultDependencies=no\n"
                "Before=local-fs-pre.target sysinit.target\n"
                "[Service]\n"
                "Type=oneshot\n"
                "RemainAfterExit=yes\n"
                "ExecStart=/bin/mount --make-rshared /\n"
                "[Install]\n"
                "WantedBy=sysinit.target\n"
            ),
        },
        commands=(
            f"useradd --create-home --shell /bin/bash {ADMIN}",
            f"chmod 440 /etc/sudoers.d/{ADMIN}",
            f"install -d -m 755 {AUTHORIZED_KEYS}",
            # The distribution's sysctls would change the kernel of the operator's machine.
            "for f in /usr/lib/sysctl.d/*.conf; do ln -sf /dev/null /etc/sysctl.d/${f##*/}; done",
            "systemctl set-default multi-user.target",
            "systemctl enable ssh.service rshared.service",
            f"systemctl mask {' '.join(MASKED)}",
        ),
    )


def full(mirror: str) -> Recipe:
    return Recipe(
        kind="full",
        base=bare(mirror).tag,
        packages=(
            "bash",
            "bird2",
            "conntrack",
            "curl",
            "ethtool",
            "haproxy",
            "iptables",
            "keepalived",
            "mount",
            "nftables",
            "socat",
            "zstd",
        ),
        # sshd takes the first value that it reads.
        files={"/etc/ssh/sshd_config.d/10-root.conf": "PermitRootLogin prohibit-password\n"},
        commands=("systemctl disable bird.service haproxy.service keepalived.service",),
    )


def apt_sources(mirror: str) -> str:
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return (
        f"Types: deb\nURIs: {mirror}\nSuites: {SUITE} {SUITE}-updates\n"
        f"Components: main\nSigned-By: {keyring}\n\n"
        f"Types: deb\nURIs: {mirror}-security\nSuites: {SUITE}-security\n"
        f"Components: main\nSigned-By: {keyring}\n"
    )


def debian_mirror(sources: str) -> str:
    """Find the first Debian archive in apt's sources; both formats of sources are read."""
    for line in sources.splitlines():
        for word in line.split("#")[0].split():
            uri = word.rstrip("/")
            if uri.startswith(("http://", "https://")) and uri.endswith("/debian"):
                return uri
    return DEFAULT_MIRROR


def operators_mirror(etc: Path = Path("/etc/apt")) -> str:
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    return debian_mirror(
        "\n".join(f.read_text(errors="replace") for f in files if os.access(f, os.R_OK))
    )


def tag(kind: Kind) -> str:
    """Give the tag of the image of that kind, which `ensure` builds."""
    return _recipes(kind, operators_mirror())[-1].tag


def _recipes(kind: Kind, mirror: str) -> tuple[Recipe, ...]:
    return (bare(mirror),) if kind == "bare" else (bare(mirror), full(mirror))


def ensure(engine: Engine, kind: Kind, progress: Progress) -> str:
    """Build the image if it is missing; return its tag.

    Raises:
        MachinesError: a package archive does not answer, or the engine fails.
    """
    mirror = operators_mirror()
    recipes = _recipes(kind, mirror)
    wanted = [recipe for recipe in recipes if not engine.has_image(recipe.tag)]
    if wanted:
        subjects = tuple(recipe.kind for recipe in wanted)
        summary = "build the image of the lab's machines, once"
        with progress.phase("machine image", summary, subjects):
            for recipe in wanted:
                say = _reporter(progress, recipe.kind)
                build(engine, recipe, recipe.base or _base(engine, mirror, say, progress), say)
                progress.done(recipe.kind, recipe.tag)
    return recipes[-1].tag


def build(engine: Engine, recipe: Recipe, base: str, say: Callable[[str], None]) -> None:
    with tempfile.TemporaryDirectory(prefix="clusterctl-image-") as name:
        context = Path(name)
        (context / "Containerfile").write_text(containerfile(recipe))
        for path, content in recipe.files.items():
            file = context / "rootfs" / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        engine.build(context, recipe.tag, base, say)


def _base(engine: Engine, mirror: str, say: Callable[[str], None], progress: Progress) -> str:
    """Find or make a plain Debian image: pull it, else make it from the package archive."""
    made = f"{REPOSITORY}:base-{SUITE}-{hashlib.sha256(mirror.encode()).hexdigest()[:12]}"
    for tag in (PULLED_BASE, made):
        if engine.has_image(tag):
            return tag
    say(f"asking for {PULLED_BASE}")
    if engine.registry_answers(PULLED_BASE):
        engine.run("pull", "--quiet", PULLED_BASE, timeout=600)
        return PULLED_BASE
    progress.note(f"no image registry answers: the base image is made from {mirror}")
    _debootstrap(engine, mirror, made, say)
    return made


def _debootstrap(engine: Engine, mirror: str, tag: str, say: Callable[[str], None]) -> None:
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        raise MachinesError(
            f"{PULLED_BASE} cannot be pulled, and debootstrap, which can make it, "
            + ("needs root" if os.geteuid() else "is not installed"),
            hint="run the same command as root"
            if os.geteuid()
            else f"{shell('apt-get', 'install', 'debootstrap')}; then the same command again",
        )
    # Not /tmp: it is often a small tmpfs and mounted nodev.
    with tempfile.TemporaryDirectory(prefix="clusterctl-base-", dir="/var/tmp") as name:
        root, archive = Path(name, "root"), Path(name, "root.tar")
        # The mounts of debootstrap are in their own mount namespace, which always ends with it.
        follow(
            ("unshare", "--mount", "debootstrap", "--variant=minbase", SUITE, str(root), mirror),
            say,
        )
        shutil.rmtree(root / "var/cache/apt/archives")
        say("importing")
        follow(("tar", "--numeric-owner", "-C", str(root), "-cf", str(archive), "."), say)
        engine.run("import", str(archive), tag, timeout=600)


def _reporter(progress: Progress, subject: str) -> Callable[[str], None]:
    return lambda line: progress.update(subject, line)
