"""What a master gets to take snapshots by itself."""

import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from provision.commands.etcd import snapshot_file
from provision.desired.components import backup
from provision.desired.components.backup import BACKUP
from provision.model.cluster import Files, Role
from provision.model.settings.backup import Backup
from provision.pki import age
from provision.pki.trust import Trust
from tests.unit.etcd_programs_test import play
from tests.world import LAB, NOW, PLAIN, RHEL, cluster, machine, master, trust

SSH = Backup(to="ssh://a@192.0.2.9:2222/srv/x", ssh_host_key="ssh-ed25519 AAAA")
FILES = Files(inventory="# ours\n", ssh_key="THE KEY\n")
S3 = Backup(to="s3://bucket/x", s3_access_key="AKIA", s3_secret_key="wJalr/7")
ROLE = Backup(to="s3://bucket/backups", s3_region="eu-central-1")
ALL = {"here only": Backup(), "ssh": SSH, "s3": S3, "s3, by the instance's role": ROLE}


def state(given=Backup(), facts=LAB, members=(master("m1"),), keys=None):  # noqa: B008 - frozen
    of = cluster(*members).model_copy(update={"backup": given, "files": FILES})
    return BACKUP.state(of, of.masters[0], keys or trust(), facts)


def files(of):
    return {f.path: f for f in of.files}


def test_every_master_has_the_backup_unless_it_is_turned_off():
    of = cluster(master("m1"), machine("w1", Role.WORKER))
    off = of.model_copy(update={"backup": Backup(enabled=False)})

    assert [m.name for m in of.machines if BACKUP.wanted(of, m)] == ["m1"]
    assert not [m.name for m in off.machines if BACKUP.wanted(off, m)]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_every_shell_can_parse_the_program(name, shell):
    program = files(state(ALL[name]))[backup.PROGRAM].content

    done = subprocess.run([shell, "-n"], input=program, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def gone(names, **settings):
    """Those that a run of `demo`'s m1 removes."""
    program = files(state(Backup(**settings)))[backup.PROGRAM].content.decode()
    functions = program.partition("\ninstall -d")[0]
    done = subprocess.run(
        ["sh", "-c", f"{functions}\nmine | old"],
        input="".join(f"{name}\n" for name in names),
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def taken(days, cluster_="demo", machine_="m1"):
    """The name of a snapshot that is as many days old."""
    when = datetime.now(UTC) - timedelta(days=days)
    return snapshot_file.name(cluster_, when, machine_)


def test_as_many_snapshots_are_kept_as_configured_and_none_that_is_older():
    names = [taken(days) for days in (0, 1, 2, 3, 40, 50)]

    assert gone(names, keep=10, days=30) == {*names[4:]}
    assert gone(names, keep=2, days=30) == {*names[2:]}
    assert gone(names, keep=1, days=1) == {*names[1:]}


def test_the_newest_stays_however_old_it_is():
    assert gone([taken(400), taken(500)], keep=1, days=1) == {taken(500)}


def test_files_of_others_stay():
    others = [
        taken(400, machine_="m2"),
        taken(400, machine_="m11"),
        taken(400, cluster_="other"),
        taken(400, cluster_="my-demo"),
        "notes.txt",
        f".{taken(400)}",
    ]
    assert gone([*others, taken(0)], keep=1, days=1) == set()


def test_credentials_are_in_closed_files_and_in_no_program():
    for given, path, secret in (
        (SSH, backup.SSH_KEY, b"THE KEY"),
        (S3, backup.CURL, b"wJalr/7"),
    ):
        for file in state(given).files:
            assert (secret in file.content) is (file.path == path)
        assert files(state(given))[path].mode == 0o600
        assert files(state(given))[path].secret


def test_without_a_key_of_its_own_it_asks_for_that_of_the_instances_role():
    found = files(state(ROLE))

    assert backup.CURL not in found
    assert b"meta-data/iam" in found[backup.PROGRAM].content
    assert b"meta-data/iam" not in files(state(S3))[backup.PROGRAM].content


def test_a_host_is_known_by_its_pinned_key():
    assert files(state(SSH))[backup.KNOWN_HOSTS].content == b"[192.0.2.9]:2222 ssh-ed25519 AAAA\n"


def test_snapshots_contain_the_inventory_and_are_encrypted_for_every_recipient():
    other = age.recipient(age.identity(Trust.create("other", NOW)))
    found = files(state(Backup(recipients=(other,))))

    assert found[backup.INVENTORY].content == b"# ours\n"
    mine = age.recipient(age.identity(trust()))
    assert found[backup.RECIPIENTS].content.decode().split() == [mine, other]


def test_a_replaced_encryption_key_is_another_recipient():
    keys = replace(trust(), encryption_key=Trust.create("other", NOW).encryption_key)

    old, new = (files(state(keys=k))[backup.RECIPIENTS] for k in (trust(), keys))
    assert old.content != new.content


def test_packages_are_those_that_the_way_of_the_copies_needs():
    assert state().packages == ()
    assert state(S3).packages == ("curl",)
    assert state(SSH, PLAIN).packages == ("openssh-client",)
    assert state(SSH, RHEL).packages == ("openssh-clients",)


def test_a_master_without_etcd_gets_the_programs_that_save_and_read_its_data():
    apart = (machine("m1", Role.MASTER), machine("e1", Role.ETCD))

    assert [b.artifact for b in state().binaries] == ["age/age"]
    assert {b.artifact for b in state(members=apart).binaries} == {
        "age/age",
        "etcd/etcdctl",
        "etcd/etcdutl",
    }


def test_only_the_timers_own_file_restarts_the_timer():
    (unit,) = state().units
    assert unit.reads == (f"/etc/systemd/system/{backup.TIMER}",)


class Master:
    """A master in a directory, whose place for copies is away unless it is said to be there."""

    def __init__(self, root):
        self.root, self.backups = root, root / "backups"
        self.backups.mkdir()
        play(
            root / "tools",
            **{
                "clusterctl-snapshot": "echo data\n",
                "age": """while [ $# -gt 1 ]; do shift; done; cat >"$1"\n""",
                "sftp": f"""while read -r verb one two; do
[ -e {root}/there ] || exit 255
case $verb in get) cp {root}/copy "$two" ;; put) cp "$one" {root}/copy ;; esac
done\n""",
                "sync": "exit 0\n",
            },
        )

    def run(self, *arguments, later=0):
        """What the service runs, so many minutes from now; whether it succeeded."""
        date = shutil.which("date")
        play(
            self.root / "tools",
            date=f"""exec {date} -u -d "$3 {later} minutes" "$4"\n""",
        )
        program = self.program
        for real, played in (
            ("/var/lib/clusterctl/backups", str(self.backups)),
            (backup.SNAPSHOT, f"{self.root}/tools/clusterctl-snapshot"),
            ("/usr/local/bin/age", f"{self.root}/tools/age"),
            (backup.INVENTORY, "/dev/null"),
            ("PATH=/usr/local/sbin:", f"PATH={self.root}/tools:/usr/local/sbin:"),
        ):
            assert real in program
            program = program.replace(real, played)
        done = subprocess.run(["sh", "-c", program, "sh", *arguments], check=False)
        return done.returncode == 0

    @property
    def program(self):
        return files(state(SSH))[backup.PROGRAM].content.decode()

    @property
    def taken(self):
        return sorted(p.name for p in self.backups.iterdir() if p.name.startswith("demo-"))


def test_a_try_after_a_failed_copy_copies_what_is_there_and_a_new_day_has_its_own(tmp_path):
    master_ = Master(tmp_path)
    service = files(state(SSH))[f"/etc/systemd/system/{backup.SERVICE}"].content.decode()
    assert f"ExecStart={backup.PROGRAM} retry\n" in service

    assert [master_.run("retry", later=5 * i) for i in range(6)] == [False] * 6
    (first,) = master_.taken
    assert not master_.run("retry", later=360)
    assert len(master_.taken) == 2
    (tmp_path / "there").touch()
    assert master_.run("retry", later=365)
    assert len(master_.taken) == 2
    assert master_.run("retry", later=370)
    assert len(master_.taken) == 3
    assert first in master_.taken


def test_a_requested_snapshot_is_taken_even_if_an_earlier_copy_failed(tmp_path):
    master_ = Master(tmp_path)
    assert not master_.run("retry")
    assert not master_.run(later=1)
    assert len(master_.taken) == 2


def test_a_retry_does_not_copy_a_deleted_snapshot(tmp_path):
    master_ = Master(tmp_path)
    assert not master_.run("retry")
    (master_.backups / master_.taken[0]).unlink()
    assert not master_.run("retry", later=1)
    assert len(master_.taken) == 1
