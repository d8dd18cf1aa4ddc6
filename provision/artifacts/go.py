"""Run `go`: find or fetch the pinned toolchain, compile, and report the progress."""

from __future__ import annotations

import json
import os
import platform
import queue
import shutil
import stat
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from provision.model.commands import shell
from provision.model.errors import ArtifactError, RefusedError

# One toolchain for all operators: binaries have the same hash on every computer.
TOOLCHAIN = "go1.26.8"
# The oldest Go that can download the toolchain's module.
_OLDEST = (1, 16)
_REPORT_EVERY = 2.0
_LAST_LINES = 20
_ARCHES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
# Variables that could change the binaries of the same source. They have explicit values, because
# `go env -w` may have set others in a file. The user chooses the source of modules (GOPROXY).
_FIXED = {
    "GOTOOLCHAIN": "local",
    "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
    "GOWORK": "off",
    "GOAMD64": "v1",
    "GOARM64": "v8.0",
    "GOOS": "linux",
}
_UNWANTED = ("GOROOT", "GOEXPERIMENT", "CGO_CFLAGS", "CGO_LDFLAGS")

Report = Callable[[str], None]
# Called with the packages before they are installed on this computer. Raises if the operator has
# not agreed.
Agree = Callable[[Sequence[str]], None]


def refuse(packages: Sequence[str]) -> None:
    """Refuse to install packages on this computer, where the operator cannot be asked.

    Raises:
        RefusedError: always.
    """
    raise RefusedError(
        f"compiling needs {', '.join(packages)}, which this computer does not have; clusterctl"
        " installs them only with your consent",
        hint=shell("apt-get", "install", *packages),
    )


@dataclass(frozen=True)
class CCompiler:
    """Environment variables that cgo needs."""

    environment: Mapping[str, str] = field(default_factory=dict)


def machine_arch() -> str:
    """Give the architecture of this computer, in Go's words: `amd64`."""
    return _ARCHES.get(platform.machine().lower(), platform.machine().lower())


def toolchain(report: Report, agree: Agree) -> Path:
    """Give the path of the pinned `go`.

    If this computer has another version, that version fetches the pinned one as a module, and Go's
    checksum database verifies it.

    Raises:
        ArtifactError: Go is not installed, or is too old to fetch the pinned version.
        RefusedError: the operator does not agree to install it.
    """
    go = shutil.which("go") or _install(("golang-go",), "go", report, agree)
    if go is None:
        raise ArtifactError(
            "the source `build` needs Go, which is not installed on this computer",
            hint=f"install Go {_OLDEST[0]}.{_OLDEST[1]} or newer: https://go.dev/doc/install; clusterctl"
            f" then fetches {TOOLCHAIN} itself",
        )
    version = _output([go, "version"]).split()[2]
    if version == TOOLCHAIN:
        return Path(go)
    numbers = tuple(int(part) for part in version.removeprefix("go").split(".")[:2])
    if numbers < _OLDEST:
        raise ArtifactError(
            f"{go} is {version}: too old",
            hint=f"install Go {_OLDEST[0]}.{_OLDEST[1]} or newer: https://go.dev/doc/install",
        )
    report(f"fetching {TOOLCHAIN} with {version}")
    system = platform.system().lower()
    module = f"golang.org/toolchain@v0.0.1-{TOOLCHAIN}.{system}-{machine_arch()}"
    downloaded = json.loads(_output([go, "mod", "download", "-json", module]))
    return _usable(Path(downloaded["Dir"]))


def _usable(root: Path) -> Path:
    """Prepare a toolchain's module as `go` itself does: files of modules are not executable."""
    for program in (*root.glob("bin/*"), *root.glob("pkg/tool/*/*")):
        program.chmod(program.stat().st_mode | 0o111)
    for hidden in (root / "src/_go.mod", root / "src/cmd/_go.mod"):
        shown = hidden.with_name("go.mod")
        if not shown.exists():
            hidden.parent.chmod(hidden.parent.stat().st_mode | stat.S_IWUSR)
            shutil.copyfile(hidden, shown)
    return root / "bin/go"


def c_compiler(arch: str, report: Report, agree: Agree) -> CCompiler:
    """Find or install a C compiler and libseccomp's headers and static library for `arch`.

    Raises:
        ArtifactError: one of them is missing; the message names all of them.
        RefusedError: the operator does not agree to install them.
    """
    gnu = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[arch]
    native = platform.system() == "Linux" and arch == machine_arch()
    compiler = "gcc" if native else f"{gnu}-gcc"
    environment = (
        {} if native else {"CC": compiler, "PKG_CONFIG_LIBDIR": f"/usr/lib/{gnu}/pkgconfig"}
    )
    if native and not _has_libseccomp(compiler, environment):
        packages = ("gcc", "libc6-dev", "libseccomp-dev", "pkg-config")
        _install(packages, compiler, report, agree)
    if not _has_libseccomp(compiler, environment):
        named = (
            "gcc libc6-dev libseccomp-dev pkg-config (Debian), "
            "gcc glibc-static libseccomp-static libseccomp-devel pkgconf (Fedora)"
            if native
            else f"on Debian: dpkg --add-architecture {arch}; apt-get install gcc-{gnu} "
            f"libseccomp-dev:{arch} pkg-config; or build on a Linux {arch} machine"
        )
        raise ArtifactError(
            f"runc for {arch} needs {compiler}, pkg-config and libseccomp's headers and static "
            "library, which are not on this computer",
            hint=f"install {named}",
        )
    return CCompiler(environment)


def _has_libseccomp(compiler: str, environment: Mapping[str, str]) -> bool:
    if not (shutil.which(compiler) and shutil.which("pkg-config")):
        return False
    found = subprocess.run(
        ["pkg-config", "--exists", "libseccomp"], env={**os.environ, **environment}, check=False
    )
    return found.returncode == 0


def _install(packages: Sequence[str], program: str, report: Report, agree: Agree) -> str | None:
    """Install the distribution's packages, if this process may and the operator agrees.

    The process may if it is root on a system with apt.
    """
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return None
    agree(packages)
    report(f"installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        _output(["apt-get", "-q", *arguments], environment)
    return shutil.which(program)


def build(
    go: Path,
    module: Path,
    packages: Sequence[str],
    out: Path,
    *,
    arch: str,
    ldflags: str,
    tags: Sequence[str] = (),
    cgo: CCompiler | None = None,
    report: Report,
) -> None:
    """Compile programs for Linux into `out`, each named by the last part of its package's path.

    Args:
        go: from `toolchain`.
        module: directory with go.mod and go.sum; no file in it is changed.
        report: called every two seconds with the number of compiled packages.

    Raises:
        ArtifactError: `go` failed; the message has the last lines that it wrote.
    """
    command = [str(go), "build", "-v", "-ldflags", ldflags, "-tags", ",".join(tags)]
    command += ["-o", f"{out}{os.sep}", *packages]
    environment = {
        **_environment(),
        **_FIXED,
        "GOARCH": arch,
        "CGO_ENABLED": "1" if cgo else "0",
        **(cgo.environment if cgo else {}),
    }
    status, last = _run(command, module, environment, report)
    if status != 0:
        raise ArtifactError(
            f"`go build {' '.join(packages)}` in {module} failed ({status}):\n" + "\n".join(last),
            hint="if modules could not be downloaded: set GOPROXY to a proxy that you can reach,"
            " or use a bundle that was made on another computer",
        )


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _UNWANTED}


def _run(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], report: Report
) -> tuple[int, Sequence[str]]:
    process = subprocess.Popen(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in process.stdout or ():
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    last: deque[str] = deque(maxlen=_LAST_LINES)
    started = reported = time.monotonic()
    packages = 0
    line: str | None = ""
    try:
        while line is not None:
            try:
                line = lines.get(timeout=_REPORT_EVERY)
            except queue.Empty:
                line = ""
            if line:
                last.append(line)
                packages += not line.startswith(("#", "go:", " ", "\t"))
            now = time.monotonic()
            if now - reported >= _REPORT_EVERY:
                reported = now
                report(f"compiling and linking: {packages} packages, {now - started:.0f} s")
        return process.wait(), last
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _output(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Give the standard output of a short command.

    Raises:
        ArtifactError: the command failed; the message has its output.
    """
    done = subprocess.run(
        command,
        cwd="/",
        env=environment or {**_environment(), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()[-_LAST_LINES:]
        raise ArtifactError(
            f"`{' '.join(command)}` failed ({done.returncode}):\n" + "\n".join(lines),
            hint="run the command by hand to see its whole output",
        )
    return done.stdout
