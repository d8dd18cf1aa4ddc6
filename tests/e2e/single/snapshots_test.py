"""Snapshots that a master takes by itself, their copies in other places, and restores.

The tests run in the order of the file: each begins with the snapshots that the previous test left.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
import zstandard

from provision.local import private_file
from tests.aws import REGION, Moto, moto_server
from tests.e2e.conftest import Lab
from tests.e2e.sample import PARTS, long, sampled
from tests.e2e.single.conftest import COPIES, set_inventory

pytestmark = pytest.mark.e2e

BACKUPS = "/var/lib/clusterctl/backups"
BUCKET = "snapshots"
# The name of a snapshot has a resolution of one second.
TAKE = "s=$(date +%s); until [ $(date +%s) != $s ]; do sleep 0.1; done; clusterctl-backup"
ANCIENT = "test-single-20200101T000000Z-n1.tar.zst.age"
ANOTHERS = "test-single-20200101T000000Z-n2.tar.zst.age"


@pytest.fixture(scope="module")
def moto(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An S3 service with a bucket, at an address that the machine reaches."""
    operator = lab.addresses()["n1"].rsplit(".", 1)[0] + ".1"
    with moto_server(tmp_path_factory.mktemp("moto"), host=operator) as moto:
        moto.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        yield moto


def on(lab: Lab, command: str, stdin: str = "") -> str:
    """The output of a command on the machine."""
    return lab.on("n1", command, stdin=stdin)


def names(lab: Lab, directory: str) -> list[str]:
    return sorted(on(lab, f"ls {directory}").split())


def sha256(lab: Lab, path: str) -> str:
    return on(lab, f"sha256sum {path}").split()[0]


def config_maps(lab: Lab) -> set[str]:
    listed = lab.clusterctl("kubectl", "--", "get", "configmaps", "-o", "name").stdout.split()
    return {name.removeprefix("configmap/") for name in listed} - {"kube-root-ca.crt"}


def objects(moto: Moto) -> list[str]:
    listed = moto.client("s3").list_objects_v2(Bucket=BUCKET)
    return sorted(item["Key"] for item in listed.get("Contents", ()))


@pytest.fixture(scope="module", autouse=True)
def before(lab: Lab) -> None:
    """An object that is in all snapshots."""
    lab.clusterctl("kubectl", "--", "create", "configmap", "before", "--from-literal=a=b")


@pytest.fixture(scope="module")
def taken(lab: Lab) -> str:
    """The snapshot that the timer's service takes."""
    on(lab, "systemctl start clusterctl-backup.service")
    (name,) = names(lab, BACKUPS)
    return name


def test_a_master_takes_whole_and_encrypted_snapshots_by_a_timer(lab: Lab, taken: str) -> None:
    assert "n/a" not in on(lab, "systemctl list-timers clusterctl-backup.timer | sed -n 2p")
    assert on(lab, f"stat -c '%a %U' {BACKUPS} {BACKUPS}/{taken}") == "700 root\n600 root\n"
    identity = lab.clusterctl("etcd key").stdout
    opened = f"age -d -i /dev/stdin {BACKUPS}/{taken} | zstd -d | tar -x --to-stdout"

    def content(path: str) -> str:
        return on(lab, f"{opened} {path} | sha256sum", stdin=identity).split()[0]

    assert content("inventory.py") == hashlib.sha256(lab.inventory.read_bytes()).hexdigest()
    for path in ("ca.key", "etcd/ca.key", "sa.key", "encryption.key"):
        where = f"/etc/kubernetes/pki/{path}"
        assert content(where.removeprefix("/")) == sha256(lab, where)


def test_a_snapshot_is_copied_over_ssh_and_verified_from_the_copy(lab: Lab, taken: str) -> None:
    assert names(lab, COPIES) == [taken]
    assert sha256(lab, f"{COPIES}/{taken}") == sha256(lab, f"{BACKUPS}/{taken}")
    listed = json.loads(lab.clusterctl("etcd list", "-o", "json").stdout)
    assert [copy["name"] for copy in listed["snapshots"]] == [taken, taken]
    assert listed["silent"] == {}

    on(lab, f"mv {BACKUPS}/{taken} /root")
    said = lab.clusterctl("etcd verify", "--from", taken).stdout
    on(lab, f"mv /root/{taken} {BACKUPS}")

    assert COPIES in said
    assert "as in the snapshot" in said
    assert on(lab, "ls /var/lib/clusterctl/verify") == ""


def test_old_snapshots_are_deleted_and_files_of_other_clusters_stay(lab: Lab, taken: str) -> None:
    for directory in (BACKUPS, COPIES):
        on(lab, f"cd {directory} && touch {ANCIENT} {ANOTHERS} notes.txt")

    on(lab, TAKE)
    on(lab, TAKE)

    for directory in (BACKUPS, COPIES):
        left = names(lab, directory)
        assert {ANOTHERS, "notes.txt"} < set(left)
        assert len(left) == 4, left
        assert taken not in left
    on(lab, f"cd / && rm {BACKUPS}/{ANOTHERS} {COPIES}/{ANOTHERS}")


def test_a_snapshot_that_cannot_be_copied_is_kept_and_reported(lab: Lab, taken: str) -> None:
    before = names(lab, BACKUPS)
    on(lab, f"mv {COPIES} {COPIES}.away")

    said = on(lab, f"({TAKE}) 2>&1 || echo failed")
    listed = json.loads(lab.clusterctl("etcd list", "-o", "json").stdout)

    on(lab, f"mv {COPIES}.away {COPIES}")
    assert "no copy at root@" in said
    assert said.endswith("failed\n")
    assert max(names(lab, BACKUPS)) > max(before)
    (why,) = listed["silent"].values()
    assert "/srv/copies" in why


def test_a_full_disk_leaves_no_partial_snapshot(lab: Lab, taken: str) -> None:
    before = names(lab, BACKUPS)
    for directory, command in (
        (f"{BACKUPS}/.work/snapshot", lambda: on(lab, "clusterctl-backup 2>&1 || true")),
        ("/var/lib/clusterctl/verify", lambda: lab.clusterctl("etcd verify", check=False).stderr),
    ):
        on(lab, f"mkdir -p {directory} && mount -t tmpfs -o size=64k none {directory}")
        said = command()
        on(lab, f"umount {directory}")
        assert f"no room in {directory}" in " ".join(said.split())
    assert names(lab, BACKUPS) == before


def test_a_snapshot_is_copied_to_s3_and_read_from_there(lab: Lab, moto: Moto) -> None:
    iam = moto.client("iam")
    allowed = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]
    iam.create_user(UserName="backup")
    iam.put_user_policy(
        UserName="backup",
        PolicyName="all",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": allowed}),
    )
    pair = iam.create_access_key(UserName="backup")["AccessKey"]
    set_inventory(
        backup={
            "keep": 2,
            "to": f"s3://{BUCKET}/clusters/one",
            "s3_endpoint": moto.url,
            "s3_region": REGION,
            "s3_access_key": pair["AccessKeyId"],
            "s3_secret_key": pair["SecretAccessKey"],
        }
    )
    moto.client("s3").put_object(Bucket=BUCKET, Key=f"clusters/one/{ANCIENT}", Body=b"")
    lab.clusterctl("up", "--yes")
    assert lab.clusterctl("plan").returncode == 0

    moto.enforce(enforced=True)
    try:
        on(lab, "clusterctl-backup")
        newest = max(names(lab, BACKUPS))
        kept = sha256(lab, f"{BACKUPS}/{newest}")
        on(lab, f"rm {BACKUPS}/*")
        said = lab.clusterctl("etcd verify", "--from", "newest").stdout
    finally:
        moto.enforce(enforced=False)

    assert "s3://" in said
    assert objects(moto) == [f"clusters/one/{newest}"]
    body = moto.client("s3").get_object(Bucket=BUCKET, Key=f"clusters/one/{newest}")["Body"].read()
    assert hashlib.sha256(body).hexdigest() == kept


def test_a_refusal_by_s3_is_reported_and_the_snapshot_is_kept(lab: Lab, moto: Moto) -> None:
    before = objects(moto)
    credentials = "/etc/clusterctl/backup/curl"
    on(lab, f"sed -i.kept 's/^\\(user.*\\)\"$/\\1wrong\"/' {credentials}")
    moto.enforce(enforced=True)
    try:
        said = on(lab, "clusterctl-backup 2>&1 || echo failed")
    finally:
        moto.enforce(enforced=False)
        on(lab, f"mv {credentials}.kept {credentials}")
    assert f"{moto.url} refuses: " in said
    assert "SignatureDoesNotMatch" in said
    assert said.endswith("failed\n")
    assert objects(moto) == before
    assert len(names(lab, BACKUPS)) == 1


@dataclass(frozen=True)
class Opened:
    """A snapshot's files, by name."""

    files: dict[str, bytes]

    @staticmethod
    def of(path: Path, identity: str) -> Opened:
        key = pyrage.x25519.Identity.from_str(identity.strip())
        plain = zstandard.ZstdDecompressor().stream_reader(
            io.BytesIO(pyrage.decrypt(path.read_bytes(), [key]))
        )
        with tarfile.open(fileobj=io.BytesIO(plain.read())) as tar:
            members = {m.name: tar.extractfile(m) for m in tar}
            return Opened({name: file.read() for name, file in members.items() if file})

    def saying(self, **changes: str) -> Opened:
        manifest = json.loads(self.files["manifest.json"]) | changes
        return Opened({**self.files, "manifest.json": json.dumps(manifest).encode()})

    def write(self, path: Path, identity: str) -> Path:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, content in self.files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        to = pyrage.x25519.Identity.from_str(identity.strip()).to_public()
        path.write_bytes(pyrage.encrypt(zstandard.compress(packed.getvalue()), [to]))
        return path


def test_bad_snapshots_are_refused_and_nothing_is_touched(lab: Lab, tmp_path: Path) -> None:
    """Sampling chooses the snapshots.

    tests/unit/etcd_snapshot_file_test.py and etcd_source_test.py test all of them.
    """
    good, locked, words = tmp_path / "good", tmp_path / "locked", tmp_path / "words"
    private_file.write(words, b"correct horse\n")
    lab.clusterctl("etcd snapshot", "-o", good)
    lab.clusterctl("etcd snapshot", "-o", locked, "--passphrase-file", words)
    private_file.write(words, b"battery staple\n")
    identity = lab.clusterctl("etcd key").stdout
    opened = Opened.of(good, identity)
    altered = {**opened.files, "etcd.db": b"x" + opened.files["etcd.db"][1:]}
    cut = tmp_path / "cut"
    cut.write_bytes(good.read_bytes()[:-100])
    other = opened.saying(cluster="other").write(tmp_path / "other", identity)
    newer = opened.saying(etcd="3.99.0").write(tmp_path / "newer", identity)
    foreign = opened.write(tmp_path / "foreign", str(pyrage.x25519.Identity.generate()))
    bad = {
        "cut": (cut, "damaged or cut off"),
        "other": (other, "of the cluster other"),
        "newer": (newer, "made by etcd 3.99.0"),
        "altered": (
            Opened(altered).write(tmp_path / "altered", identity),
            "is not that of the manifest",
        ),
        "foreign": (foreign, "none of"),
        "locked": (locked, "not the passphrase"),
        "words": (words, "is not a snapshot"),
        "absent": (tmp_path / "absent", "neither on this computer nor on a master"),
    }
    assert tuple(bad) == PARTS["bad snapshot"][1]
    runs = "systemctl show -p InvocationID etcd kube-apiserver"
    before = on(lab, runs)

    for name in sampled("bad snapshot"):
        path, why = bad[name]
        done = lab.clusterctl(
            "etcd restore", "--yes", "--from", path, "--passphrase-file", words, check=False
        )
        assert done.returncode == 5, path
        assert why in " ".join(done.stderr.split()), done.stderr

    assert on(lab, runs) == before
    assert lab.clusterctl("plan").returncode == 0


def test_a_cluster_is_restored_from_a_copy_on_its_own_machines(lab: Lab) -> None:
    lab.clusterctl("kubectl", "--", "create", "configmap", "after", "--from-literal=a=b")
    on(lab, f"rm {BACKUPS}/*")

    lab.clusterctl("etcd restore", "--from", "newest", "--yes")

    assert config_maps(lab) == {"before"}
    assert lab.clusterctl("plan").returncode == 0


@long(65)
def test_a_cluster_that_lost_all_machines_is_restored_from_a_copy(lab: Lab) -> None:
    fingerprint = sha256(lab, "/etc/kubernetes/pki/ca.crt")
    lab.destroy("n1")

    lab.clusterctl("etcd restore", "--from", "newest", "--yes")

    assert config_maps(lab) == {"before"}
    assert sha256(lab, "/etc/kubernetes/pki/ca.crt") == fingerprint
    assert lab.clusterctl("plan").returncode == 0
    on(lab, "clusterctl-backup")
    assert lab.clusterctl("etcd verify").returncode == 0
