"""The programs of Debian's releases, unpacked side by side in the user's cache.

Nothing is installed: no maintainer script runs, and dpkg of this computer does not know of it. A
suite takes 170 MB and half a minute, once. `sid` stays as it was on the day that it was unpacked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from provision.artifacts import cache
from provision.desired.packages import NAMES
from provision.machines.image import DEFAULT_MIRROR

# Name of a release in the archive -> its VERSION_ID.
SUITES = {"bullseye": "11", "bookworm": "12", "trixie": "13", "sid": ""}
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# Those whose files clusterctl writes, and what the units and the others need to run.
_UNPACKED = (
    *("haproxy", "keepalived", "bird2", "nftables", "systemd"),
    *("dash", "coreutils", "libseccomp2", "netbase", "procps"),
)
# File with the version of each package of `NAMES` that the suite has.
VERSIONS = "clusterctl-versions.json"
_ACCOUNTS = ("root", "haproxy", "bird", "etcd")


class UnavailableError(Exception):
    """The packages cannot be had on this computer, now."""


def missing() -> str:
    """What this computer lacks to unpack and run the programs; empty: nothing."""
    if os.geteuid() != 0:
        return "needs root"
    programs = ("apt-get", "dpkg-deb", "tar", "unshare", "chroot")
    lacking = [name for name in programs if not shutil.which(name)]
    return f"needs {', '.join(lacking)}" if lacking else ""


def root(suite: str) -> Path:
    """Unpack the programs of a suite, if the cache does not have them.

    Returns:
        A file system for chroot. Nothing may write to it.

    Raises:
        UnavailableError: the archive does not answer, or does not have the packages.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes() + repr(NAMES).encode()).hexdigest()[:16]
    made = cache.root() / "test-programs" / f"{suite}-{recipe}"
    with cache.locked(made.with_suffix(".lock"), lambda: None):
        if not made.exists():
            # Those of other recipes, and of runs that were killed.
            for old in (*made.parent.glob(f"{suite}-*"), *made.parent.glob(f".{suite}-*")):
                if old.is_dir():
                    shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix=f".{suite}-", dir=made.parent) as work:
                apt = Apt(suite, Path(work) / "apt")
                unpacked = Path(work) / "root"
                _unpack(apt.download(_UNPACKED), unpacked)
                versions = apt.versions((*NAMES, "bird3", "systemd"))
                (unpacked / VERSIONS).write_text(json.dumps(versions))
                if "bird3" in versions:
                    _unpack_bird3(apt, Path(work), unpacked)
                unpacked.rename(made)
    return made


class Apt:
    """apt with a state of its own, for which no package is installed."""

    def __init__(self, suite: str, state: Path) -> None:
        """Read the suite's lists of packages.

        Raises:
            UnavailableError: the archive does not answer.
        """
        self._state = state
        for name in ("lists/partial", "archives/partial"):
            (state / name).mkdir(parents=True)
        (state / "status").touch()
        (state / "sources").write_text(
            f"deb [signed-by={_KEYRING}] {DEFAULT_MIRROR} {suite} main\n"
        )
        self._run("apt-get", "-qq", "update")

    def download(self, packages: tuple[str, ...]) -> list[Path]:
        """Download packages and all that they depend on.

        Raises:
            UnavailableError: the archive does not answer, or does not have a package.
        """
        options = ("--no-install-recommends", "--download-only", "install")
        self._run("apt-get", "-qq", "-y", *options, *packages)
        return sorted((self._state / "archives").glob("*.deb"))

    def fetch(self, package: str, directory: Path) -> Path:
        """Download one package, without those that it depends on.

        Raises:
            UnavailableError: the archive does not answer.
        """
        self._run("apt-get", "-qq", "download", package, directory=directory)
        return next(directory.glob(f"{package}_*.deb"))

    def versions(self, packages: tuple[str, ...]) -> dict[str, str]:
        """Version of each of these packages that the suite has."""
        lines = self._run("apt-cache", "madison", *packages).splitlines()
        found = [[word.strip() for word in line.split("|")] for line in lines]
        return {name: version for name, version, _ in found}

    def _run(self, program: str, *arguments: str, directory: Path | None = None) -> str:
        state = self._state
        options = {
            "Acquire::http::Timeout": "10",
            "Acquire::Languages": "none",
            "Acquire::Retries": "0",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Dir::Cache::archives": state / "archives",
            "Dir::Cache::pkgcache": state / "packages.bin",
            "Dir::Cache::srcpkgcache": state / "sources.bin",
            "Dir::Etc::sourcelist": state / "sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::State::extended_states": state / "extended_states",
            "Dir::State::lists": state / "lists",
            "Dir::State::status": state / "status",
        }
        words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
        done = subprocess.run(
            [program, *words, *arguments],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(done.stderr.strip())
        return done.stdout


def _unpack_bird3(apt: Apt, work: Path, target: Path) -> None:
    """Put BIRD 3, which RHEL 10 and Fedora have, beside BIRD 2."""
    work /= "bird3"
    work.mkdir()
    subprocess.run(["dpkg-deb", "-x", apt.fetch("bird3", work), work], check=True)
    (work / "usr/sbin/bird").rename(target / "usr/sbin/bird3")


def _unpack(packages: list[Path], target: Path) -> None:
    # Newer releases have only these links.
    for name in ("bin", "sbin", "lib", "lib64"):
        (target / "usr" / name).mkdir(parents=True)
        (target / name).symlink_to(f"usr/{name}")
    for package in packages:
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE
        ) as tar:
            subprocess.run(
                ["tar", "-x", "-C", target, "--keep-directory-symlink"],
                stdin=tar.stdout,
                check=True,
            )
    etc = target / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text("".join(f"{a}:x:{i}:{i}::/:\n" for i, a in enumerate(_ACCOUNTS)))
    (etc / "group").write_text("".join(f"{a}:x:{i}:\n" for i, a in enumerate(_ACCOUNTS)))
    (etc / "machine-id").write_text("0" * 31 + "1\n")
    for name in ("dev", "proc", "run", "sys", "tmp", "root", "var/tmp"):
        (target / name).mkdir(parents=True, exist_ok=True)
