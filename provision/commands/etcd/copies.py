"""The snapshots that masters take by themselves: on the masters, and at the place of their copies."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provision.apply.checked import trimmed
from provision.apply.session import Session
from provision.commands.etcd.snapshot import TIMEOUT
from provision.commands.etcd.snapshot_file import is_of
from provision.model import paths
from provision.model.backup_place import S3Place, SshPlace, place
from provision.model.cluster import Machine
from provision.model.errors import RefusedError, UnreachableError
from provision.model.look import Look
from provision.model.settings.backup import Backup

CONNECT = 20  # seconds


@dataclass(frozen=True)
class Copy:
    """A snapshot somewhere.

    Attributes:
        name: of its file; the names of a cluster's snapshots sort by time.
        where: a master's name, or the place as the inventory writes it.
        size: bytes.
    """

    name: str
    where: str
    size: int


def listed(session: Session, look: Look) -> tuple[tuple[Copy, ...], dict[str, str]]:
    """All snapshots of this cluster, newest first; and place -> why it could not be asked."""
    masters = look.answering(session.cluster.masters)
    silent = look.unreachable(session.cluster.masters)
    find = f"find {paths.BACKUPS} -maxdepth 1 -type f -printf '%s %f\\n' 2>/dev/null || true"
    answers = session.engine.fetch(lambda _: find, masters)
    found = [Copy(n, m.name, s) for m in masters for s, n in _lines(answers[m.name].output)]
    to = place(session.cluster.backup)
    if to is not None:
        try:
            sizes = list(_away(session.cluster.backup, to))
        except UnreachableError as error:
            silent[to.shown] = error.message
        else:
            found += [Copy(name, to.shown, size) for size, name in sizes]
    own = [copy for copy in found if is_of(session.cluster.name, copy.name)]
    return tuple(sorted(own, key=lambda c: (c.name, c.where), reverse=True)), silent


def _lines(output: str) -> Iterator[tuple[int, str]]:
    for line in output.splitlines():
        size, _, name = line.partition(" ")
        yield int(size), name


def fetch(session: Session, copy: Copy, target: Path) -> None:
    """Get a copy into an existing file.

    Raises:
        RefusedError: it cannot be read.
        UnreachableError: the place does not answer.
    """
    backup = session.cluster.backup
    match place(backup):
        case SshPlace() as to if copy.where == to.shown:
            _sftp(backup, to, f'get {to.directory}/{copy.name} "{target}"')
        case S3Place() as to if copy.where == to.shown:
            _get(backup, to, copy.name, target)
        case _:
            _receive(session, session.cluster.machine(copy.where), copy.name, target)


def _receive(session: Session, machine: Machine, name: str, target: Path) -> None:
    path = f"{paths.BACKUPS}/{name}"
    with target.open("wb") as out:
        code, error = session.engine.receive(
            machine, f"cat {shlex.quote(path)}", out.write, timeout=TIMEOUT
        )
    if code != 0:
        raise RefusedError(f"{path} on {machine.name} cannot be read: {trimmed(error)}")


def _away(backup: Backup, to: SshPlace | S3Place) -> Iterator[tuple[int, str]]:
    """(size, name) of every file there."""
    match to:
        case SshPlace():
            # The format of `ls -l`; names of snapshots have no space.
            for line in _sftp(backup, to, f"ls -ln {to.directory}").splitlines():
                words = line.split()
                if len(words) == 9 and words[4].isdecimal():
                    yield int(words[4]), words[8].rpartition("/")[2]
        case S3Place():
            yield from _objects(backup, to)


# SSH: by sftp, as the masters do.


def _sftp(backup: Backup, to: SshPlace, command: str) -> str:
    with tempfile.NamedTemporaryFile("w", prefix="known_hosts-") as known:
        known.write(f"{to.known_as} {backup.ssh_host_key}\n")
        known.flush()
        arguments = [
            "sftp", "-b", "-", "-P", str(to.port), "-i", str(backup.ssh_key),
            "-o", "BatchMode=yes",
            "-o", f"ConnectTimeout={CONNECT}",
            "-o", "IdentitiesOnly=yes",
            "-o", "StrictHostKeyChecking=yes",
            "-o", f"UserKnownHostsFile={known.name}",
            f"{to.user}@{to.host}",
        ]  # fmt: skip
        try:
            done = subprocess.run(
                arguments,
                input=f"{command}\n",
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _no_answer(to, str(error)) from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if not line.startswith("Connected to ")]
        raise _no_answer(to, " ".join(said) or f"exit status {done.returncode}")
    return done.stdout


# S3


def _client(backup: Backup, to: S3Place) -> Any:  # noqa: ANN401  boto3 makes its classes as it runs
    import boto3  # noqa: PLC0415  it takes a while
    from botocore.config import Config  # noqa: PLC0415

    return boto3.client(
        "s3",
        endpoint_url=to.endpoint,
        region_name=backup.s3_region,
        # None: the operator's own keys, found as the `aws` command finds them.
        aws_access_key_id=backup.s3_access_key or None,
        aws_secret_access_key=backup.s3_secret_key or None,
        config=Config(
            s3={"addressing_style": "path"},
            connect_timeout=CONNECT,
            retries={"total_max_attempts": 3},
        ),
    )


def _objects(backup: Backup, to: S3Place) -> Iterator[tuple[int, str]]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    pages = _client(backup, to).get_paginator("list_objects_v2")
    try:
        for page in pages.paginate(Bucket=to.bucket, Prefix=to.prefix):
            for item in page.get("Contents", ()):
                yield item["Size"], item["Key"].removeprefix(to.prefix)
    except (BotoCoreError, ClientError) as error:
        raise _no_answer(to, str(error)) from error


def _get(backup: Backup, to: S3Place, name: str, target: Path) -> None:
    from boto3.exceptions import Boto3Error  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        _client(backup, to).download_file(to.bucket, f"{to.prefix}{name}", str(target))
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise _no_answer(to, str(error)) from error


def _no_answer(to: SshPlace | S3Place, why: str) -> UnreachableError:
    return UnreachableError(
        f"snapshots at {to.shown} cannot be read: {why}",
        hint="check cluster.backup in the inventory: it names the place of the copies",
    )
