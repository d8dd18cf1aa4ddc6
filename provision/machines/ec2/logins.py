"""Wait until the operator can log in to new machines on EC2."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from provision.inventory import Draft
from provision.local.progress import Progress
from provision.local.ssh_config import known_hosts_option
from provision.model import paths
from provision.model.cluster import Role, Ssh
from provision.model.errors import MachinesError
from provision.model.located import Located

LOGIN_TIMEOUT = 300.0  # seconds; from the call to the first login, 30 seconds are usual
_BY_SSH = "check that `ssh_from` has this computer's address."
_BY_SSM = "check that `aws ssm describe-instance-information` lists the instance."


def await_logins(
    draft: Draft, located: Mapping[str, Located], names: tuple[str, ...], progress: Progress
) -> None:
    """Wait until SSH logs in to these machines and etcd's volumes are mounted.

    Args:
        located: name -> how to log in, of these machines at least.

    Raises:
        MachinesError: names every machine that is not ready.
    """
    members = {host.name for host in draft.hosts if Role.ETCD in host.roles}
    cancelled = threading.Event()
    way = _BY_SSM if draft.ec2.ssh == "ssm" else _BY_SSH

    def one(name: str) -> MachinesError | None:
        progress.update(name, "wait for SSH")
        ssh, volume = located[name].ssh, name in members
        problem = await_login(name, ssh, cancelled, volume=volume, way=way)
        progress.done(name, problem.message if problem else "", failed=bool(problem))
        return problem

    with (
        progress.phase("machines", "wait for the machines to start", names),
        ThreadPoolExecutor(max_workers=16) as pool,
    ):
        try:
            problems = [problem for problem in pool.map(one, names) if problem]
        except BaseException:
            cancelled.set()  # otherwise Ctrl-C would wait for all logins
            raise
    if problems:
        lines = "\n".join(f"  {problem.message}" for problem in problems)
        message = f"{len(problems)} of {len(names)} machines cannot be used:\n{lines}"
        raise MachinesError(message, hint=problems[0].hint)


def await_login(
    name: str, ssh: Ssh, cancelled: threading.Event, *, volume: bool, way: str
) -> MachinesError | None:
    """Try to log in with OpenSSH until it works. Only the given host key is accepted.

    Args:
        way: hint for the operator if there is no connection.
    """
    check = f"mountpoint -q {paths.ETCD_DATA}" if volume else "true"
    deadline = time.monotonic() + LOGIN_TIMEOUT
    with TemporaryDirectory(prefix="clusterctl-") as folder:
        known = Path(folder) / "known_hosts"
        target = ssh.hostname if ssh.port == 22 else f"[{ssh.hostname}]:{ssh.port}"
        known.write_text(f"{target} {ssh.host_key}\n")
        argv = _command(ssh, known, check)
        while True:
            done = subprocess.run(argv, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return None
            last = (done.stderr.strip().splitlines() or ["its volume for etcd is not mounted"])[-1]
            if "REMOTE HOST IDENTIFICATION" in done.stderr or "verification failed" in last:
                return MachinesError(
                    f"{name} ({ssh.hostname}) shows another host key than the one that clusterctl gave it",
                    hint="another machine has this address, or its cloud-init did not run: "
                    "read the instance's system log in the AWS console",
                )
            if time.monotonic() > deadline:
                return MachinesError(
                    f"{name} ({ssh.hostname}): no SSH login after {LOGIN_TIMEOUT:.0f} s: {last}",
                    hint=f"{way} The instance's system log in the AWS console says whether it has "
                    "started",
                )
            if cancelled.wait(1):
                return MachinesError("interrupted")


def _command(ssh: Ssh, known_hosts: Path, check: str) -> list[str]:
    return [
        "ssh", "-p", str(ssh.port), "-l", ssh.user, "-o", "BatchMode=yes",
        "-o", known_hosts_option(known_hosts), "-o", "GlobalKnownHostsFile=/dev/null",
        "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=5",
        *(("-i", str(ssh.key), "-o", "IdentitiesOnly=yes") if ssh.key else ()),
        *(("-F", str(ssh.config_file)) if ssh.config_file else ()),
        ssh.hostname, check,
    ]  # fmt: skip
