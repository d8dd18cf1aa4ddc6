"""`make bench`: measure the time, the round trips and the memory that commands need.

Prints Markdown and writes it into bench/RESULTS.md. Machines are made and binaries are built before
the clock starts, unless the line says otherwise. The bench calls only the command line.

Each part has its own section in the file; `--only` measures only the named parts again.

    .venv/bin/python bench/run.py [--runs 5] [--only PART]...
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import results

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))

import clone  # noqa: E402
import ec2  # noqa: E402

from provision.drill import dns  # noqa: E402
from tests.e2e.traffic import Traffic  # noqa: E402

CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
LAB = HERE / "inventories" / "bench.py"
MACHINES = ("m1", "m2", "m3", "w1", "w2")
# Phases of a replacement, without making the container, verifying, and add-ons.
TO_READY = {"artifacts", "services", "etcd", "control plane", "objects", "nodes", "ready"}
DNS, NAME = "10.96.0.10", "kubernetes.default.svc.cluster.local"


def clusterctl(*arguments: str, check: bool = True) -> tuple[str, float]:
    """Standard output and wall seconds of a command."""
    done, seconds = ended(*arguments, check=check)
    return done.stdout, seconds


def ended(*arguments: str, check: bool = True) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run a command until it ends; return it, and wall seconds."""
    began = time.monotonic()
    done = subprocess.run([CLUSTERCTL, *arguments], capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        sys.exit(f"clusterctl {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    return done, time.monotonic() - began


def median(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} s ({min(values):.1f} to {max(values):.1f})"


def create(runs: int) -> list[str]:
    """Create: from five machines with sshd to Ready and a name resolved in a pod. Then a no-op."""
    made, walls, noops, restarts = [], [], [], []
    phases: dict[str, list[float]] = {}
    report: dict[str, dict[str, int]] = {}
    for _ in range(runs):
        clusterctl("down", str(LAB), "--yes")
        made.append(clusterctl("machines", "up", str(LAB))[1])
        out, wall = clusterctl("up", str(LAB), "--yes", "-o", "json")
        report = json.loads(out)
        for name, seconds in report["seconds"].items():
            phases.setdefault(name, []).append(seconds)
        walls.append(wall)
        noops.append(clusterctl("up", str(LAB), "--yes")[1])
        restarts.append(restart())
    return [
        f"| five machines with sshd to verified (Ready, names, pods, Services), whole command | {median(walls)} |",
        *(f"| of it: {name} | {median(seconds)} |" for name, seconds in phases.items()),
        f"| from no machines at all: these made first | {median(list(map(sum, zip(made, walls, strict=True))))} |",
        f"| second `up`, nothing to do | {median(noops)} |",
        f"| round trips of the first `up`, most on one machine | {max(report['round_trips'].values())} |",
        f"| bytes sent over SSH by the first `up`, all machines | {sum(report['bytes_sent'].values()) / 1e6:.0f} MB |",
        f"| all machines restarted at once, SSH answers to all Ready and a name resolved | {median(restarts)} |",
    ]


def restart() -> float:
    """Restart all machines. Seconds from SSH on all of them until all are Ready and DNS answers."""
    os.sync()  # the restart must not wait until gigabytes of a new installation are written
    podman("stop", "-t", "10", *(container(name) for name in MACHINES))
    clusterctl("machines", "up", str(LAB))
    began = time.monotonic()
    resolves = ("exec", container("w1"), "sh", "-c", dns.script(NAME, DNS))
    while time.monotonic() - began < 180:
        out, _ = clusterctl("kubectl", str(LAB), "--", "get", "nodes", "--no-headers", check=False)
        answered = subprocess.run(["podman", *resolves], capture_output=True, check=False)
        if len(re.findall(r" Ready ", out)) == len(MACHINES) and answered.returncode == 0:
            return time.monotonic() - began
    sys.exit("nodes were not Ready within 180 s of a restart")


def replaced(runs: int) -> list[str]:
    """A machine burns; one command, until the new machine works and the cluster is verified."""
    lines = []
    for name, what in (("w2", "a worker"), ("m2", "a master with its etcd member")):
        times, ready = [], []
        for _ in range(runs):
            burnt = container(name)
            podman("rm", "-f", "-t", "0", burnt)
            volumes = [v for v in podman("volume", "ls", "-q") if v.startswith(f"{burnt}-")]
            podman("volume", "rm", *volumes)
            done, seconds = ended("node", "replace", str(LAB), name, "--yes")
            phases = re.findall(r"^([a-z -]+): done in ([\d.]+) s$", done.stderr, flags=re.M)
            times.append(seconds)
            ready.append(sum(float(s) for phase, s in phases if phase in TO_READY))
        lines += [
            f"| {what} replaced: from sshd answering to Ready | {median(ready)} |",
            f"| the whole command: looked for in vain, made, verified too | {median(times)} |",
        ]
    return lines


def added(runs: int, others: int = 30) -> list[str]:
    """Add a worker to 30 machines. The journals of sshd show how many machines it contacts."""
    times, contacts = [], []
    os.environ["BENCH_WORKERS"] = str(others - 3)
    clusterctl("machines", "up", str(LAB))
    try:
        for _ in range(runs):
            clusterctl("node", "remove", str(LAB), "w2", "--yes")
            clusterctl("machines", "up", str(LAB))
            before = logins(others)
            times.append(clusterctl("node", "add", str(LAB), "w2")[1])
            contacts.append(sum(before[name] != count for name, count in logins(others).items()))
    finally:
        podman("rm", "-f", "-t", "0", *(container(f"w{n}") for n in range(3, others - 2)))
        del os.environ["BENCH_WORKERS"]
    return [
        f"| a worker added beside {others - 1} machines: `node add` | {median(times)} |",
        f"| machines that this logs in to | {max(contacts)} |",
    ]


def logins(machines: int) -> dict[str, int]:
    """Machine -> number of logins, from the journal of its sshd."""
    names = ["m1", "m2", "m3", *(f"w{n}" for n in range(1, machines - 2))]
    journal = "journalctl -q --no-pager -t sshd | grep -c Accepted; true"
    return {name: int(podman("exec", container(name), "sh", "-c", journal)[0]) for name in names}


def restored(runs: int) -> list[str]:
    """Restore the whole cluster from a snapshot, on its own machines, and verify it."""
    with tempfile.TemporaryDirectory() as folder:
        taken = Path(folder) / "snapshot.tar.zst.age"
        clusterctl("etcd", "snapshot", str(LAB), "-o", str(taken))
        times = [
            clusterctl("etcd", "restore", str(LAB), "--from", str(taken), "--yes")[1]
            for _ in range(runs)
        ]
    return [f"| `etcd restore` from a file, verifying included | {median(times)} |"]


def trust(runs: int) -> list[str]:
    """The audit; renewal of certificates while a client asks at 10 Hz; replacement of authorities.

    During the replacement, a client needs a new certificate before the end. So the tests, not the
    bench, count failed requests there.
    """
    audits = [clusterctl("audit", str(LAB))[1] for _ in range(runs)]
    renewals, failed, asked = [], 0, 0
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        clusterctl("kubeconfig", str(LAB), "-o", str(kubeconfig))
        for _ in range(runs):
            with Traffic(kubeconfig) as traffic:
                renewals.append(clusterctl("certs", "renew", str(LAB), "--all")[1])
            print("\n".join(traffic.failures), file=sys.stderr)
            failed, asked = failed + len(traffic.failures), asked + traffic.count
    _, rotation = clusterctl("certs", "rotate-ca", str(LAB))
    return [
        f"| `audit`, 92 checks | {median(audits)} |",
        f"| every certificate renewed: `certs renew --all` | {median(renewals)} |",
        f"| requests that failed meanwhile | {failed} of {asked} |",
        f"| the three authorities replaced, once: `certs rotate-ca` | {rotation:.1f} s |",
    ]


def podman(*arguments: str) -> list[str]:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split()


def container(machine: str) -> str:
    """The container of a machine in the bench's lab."""
    listed = podman("ps", "-a", "--format", "{{.Names}}")
    (name,) = [n for n in listed if n.startswith("bench-") and n.endswith(f"-{machine}")]
    return name


def itself(runs: int) -> list[str]:
    clusterctl("up", str(LAB), "--yes")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    clusterctl("down", str(LAB), "--yes")
    time.sleep(10)  # the kernel still cleans up after the cluster
    helps = [clusterctl("--help")[1] for _ in range(runs)]
    return [
        f"| peak memory of any clusterctl in this run | {peak / 1024:.0f} MB |",
        f"| `clusterctl --help` | {median(helps)} |",
    ]


def grow(runs: int) -> list[str]:
    """The probe of machines on which only sshd runs."""
    clusterctl("down", str(LAB), "--yes")
    lines, first = [], 0.0
    for size in (5, 20, 60):
        inventory = HERE / "inventories" / f"grow{size}.py"
        inventory.write_text(
            f'cluster = {{"name": "bench-grow{size}", "machines": "lab", "lab": {{"image": "bare"}}}}\n'
            f'masters = ["m1", "m2", "m3"]\nworkers = [f"w{{i}}" for i in range({size - 3})]\n'
        )
        try:
            clusterctl("machines", "up", str(inventory))
            times = [clusterctl("status", str(inventory), check=False)[1] for _ in range(runs)]
        finally:
            clusterctl("down", str(inventory), "--yes")
            inventory.unlink()
        first = first or statistics.median(times)
        ratio = statistics.median(times) / first
        lines.append(f"| probe of {size} machines (`status`) | {median(times)}, x{ratio:.1f} |")
    return lines


def on_ec2(runs: int) -> list[str]:
    """The calls to AWS, against moto. Machines of the lab stand in for instances."""
    clusterctl("up", str(LAB), "--yes")
    plain = [clusterctl("up", str(LAB), "--yes")[1] for _ in range(runs)]
    clusterctl("down", str(LAB), "--yes")
    few, calls = ec2.made(runs, group=2)
    many, calls_of_many = ec2.made(runs, group=100)
    noops = ec2.noop(runs, clusterctl)
    return [
        f"| from nothing to the last instance asked for, a group of 2 | {median(few)}, {calls} calls |",
        f"| the same with a group of 100 | {median(many)}, x{ec2.ratio(few, many):.1f}, {calls_of_many} calls |",
        f"| `up` with nothing to do, 3 masters and 2 workers | {median(noops)} |",
        f"| the same on the lab | {median(plain)} |",
    ]


def from_a_clone(runs: int) -> list[str]:
    """From a fresh clone to a verified cluster; all files come over 100 Mbit/s."""
    clusterctl("down", str(LAB), "--yes")
    made = clone.made(runs)

    def row(what: str, values: list[float]) -> str:
        return f"| {what} | {median(values)} |"

    return [
        row(
            "from a fresh clone to verified: environment, machines, cluster",
            [m.whole for m in made],
        ),
        row("of it: the clone, and its virtual environment", [m.environment for m in made]),
        row("of it: release files downloaded to the cache", [m.fetch for m in made]),
        *(row(f"of it: {phase}", [m.phases[phase] for m in made]) for phase in made[0].phases),
        f"| bytes that the server sent at 100 Mbit/s: files and images | {made[0].sent / 1e6:.0f} MB |",
    ]


# Name -> heading of its section, and the function that measures it. The bench's lab is up.
PARTS: dict[str, tuple[str, Callable[[int], list[str]]]] = {
    "create": ("From machines to a cluster", create),
    "replace": ("A machine replaced", replaced),
    "add": ("A worker added", added),
    "restore": ("Back to a snapshot", restored),
    "trust": ("Audit and certificates", trust),
    "itself": ("clusterctl itself", itself),
    "ec2": ("EC2, against moto", on_ec2),
    "grow": ("More machines", grow),
    "clone": ("From a fresh clone, at 100 Mbit/s", from_a_clone),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", action="append", choices=PARTS, help="may be given again")
    arguments = parser.parse_args()
    clusterctl("artifacts", "build", str(LAB))
    clusterctl("up", str(LAB), "--yes")
    try:
        for name, (heading, measure) in PARTS.items():
            if name not in (arguments.only or PARTS):
                continue
            rows = measure(arguments.runs)
            made = f"`bench/run.py --runs {arguments.runs} --only {name}`"
            lines = [f"{datetime.now(UTC):%Y-%m-%d}, {made}.", "", "| what | figure |", "|---|---|"]
            results.put(f"## {heading}", "\n".join([*lines, *rows]))
    finally:
        clusterctl("down", str(LAB), "--yes")
    results.put(
        "# Results",
        f"{os.cpu_count()} cores, {platform.machine()}. Lab of 3 masters and 2 workers; artifacts in "
        "the cache; machines are made\nbefore the clock starts, unless a line says otherwise. Medians "
        "(smallest to largest).",
    )


if __name__ == "__main__":
    main()
