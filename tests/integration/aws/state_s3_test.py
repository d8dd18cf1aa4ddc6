"""State that operators share in S3, against moto's server, which obeys conditions of writes."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pyrage
import pytest

from provision import inventory
from provision.local import cache_of, seal
from provision.local.s3 import SharedCache
from provision.model.errors import MachinesError, RefusedError, TrustError
from provision.model.holder import Holder
from provision.pki.trust import Trust
from tests.aws import CREDENTIALS, REGION, moto_server, proxy_of
from tests.world import NOW, trust

CLUSTERCTL = Path(sys.executable).with_name("clusterctl")
ALICE, BOB = (
    Holder(name, f"{name}s-laptop", 7, "clusterctl up demo.py") for name in ("alice", "bob")
)

# Another operator: a separate process that prints a line when it holds the lock. Arguments: the
# inventory and, optionally, the name of its computer.
OTHER = """
import sys
from dataclasses import replace
from gevent import monkey; monkey.patch_all()
from pathlib import Path
from time import sleep
from provision import inventory
from provision.local.operators import this_operator
from provision.local.s3 import SharedCache
me = this_operator("clusterctl up")
me = replace(me, computer=sys.argv[2]) if sys.argv[2:] else me
with SharedCache(inventory.read(Path(sys.argv[1])), beat=0.2).hold(me):
    print("held", flush=True)
    sleep(300)
"""


@pytest.fixture(scope="module")
def moto(tmp_path_factory):
    with moto_server(tmp_path_factory.mktemp("moto")) as moto:
        yield moto


@pytest.fixture
def proxy(moto, tmp_path, monkeypatch):
    moto.reset()
    moto.client("s3").create_bucket(
        Bucket="ours", CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    (tmp_path / "identity").write_text(f"{pyrage.x25519.Identity.generate()}\n")
    (tmp_path / "identity").chmod(0o600)
    environment = {
        **CREDENTIALS,
        "AWS_MAX_ATTEMPTS": "3",
        "AWS_DEFAULT_REGION": REGION,
        "XDG_STATE_HOME": str(tmp_path / "state"),
        seal.AGE_IDENTITY: str(tmp_path / "identity"),
    }
    with proxy_of(moto) as proxy:
        for name, value in {**environment, "AWS_ENDPOINT_URL": proxy.url}.items():
            monkeypatch.setenv(name, value)
        yield proxy


@pytest.fixture
def given(proxy, tmp_path):
    return inventory.read(write(tmp_path / "demo.py", {}, "[('m1', {'ssh_hostname': '10.0.0.1'})]"))


def write(path, settings, masters, state="s3://ours/clusters"):
    cluster = {"name": "demo", "state": state, **settings}
    path.write_text(f"cluster = {cluster!r}\nmasters = {masters}\n")
    return path


def objects(moto):
    s3 = moto.client("s3")
    return {
        thing["Key"]: s3.get_object(Bucket="ours", Key=thing["Key"])["Body"].read()
        for thing in s3.list_objects_v2(Bucket="ours").get("Contents", ())
    }


# Keys


def test_another_computer_has_the_keys_and_nowhere_do_they_lie_open(
    moto, given, tmp_path, monkeypatch
):
    cache_of(given).keep(trust())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another computer"))

    assert cache_of(given).trust() == trust()

    (content,) = objects(moto).values()
    assert list(objects(moto)) == ["clusters/demo/pki.age"]
    assert content.startswith(b"age-encryption.org/v1")
    kept = b"".join(f.read_bytes() for f in (tmp_path / "state").rglob("*") if f.is_file())
    assert b"PRIVATE KEY" not in content + kept


def test_two_operators_who_create_a_cluster_at_once_get_the_same_keys(given):
    mine, theirs = trust(), Trust.create("demo", NOW)
    assert mine != theirs

    assert cache_of(given).first(mine) == mine
    assert cache_of(given).first(theirs) == mine
    assert cache_of(given).trust() == mine


def test_a_cluster_that_is_gone_leaves_nothing(moto, given):
    cache = cache_of(given)
    cache.keep(trust())

    cache.forget()

    assert objects(moto) == {}
    assert cache.trust() is None


def test_keys_are_not_shared_unsealed(moto, given, monkeypatch):
    monkeypatch.delenv(seal.AGE_IDENTITY)

    with pytest.raises(RefusedError) as error:
        cache_of(given).keep(trust())

    assert seal.PASSPHRASE_FILE in error.value.hint
    assert objects(moto) == {}


def test_an_operator_with_another_identity_gets_an_error(given, tmp_path):
    cache_of(given).keep(trust())
    (tmp_path / "identity").write_text(f"{pyrage.x25519.Identity.generate()}\n")

    with pytest.raises(TrustError, match="the age identity does not open"):
        cache_of(given).trust()


# The lock


def test_a_second_operator_sees_who_holds_the_lock_until_the_first_ends(moto, given):
    with cache_of(given).hold(ALICE):
        with pytest.raises(RefusedError, match="alice@alices-laptop") as error:
            cache_of(given).hold(BOB).__enter__()
        assert "clusterctl unlock" in error.value.hint
        holder = cache_of(given).holder()
        assert (holder.user, holder.command) == ("alice", "clusterctl up demo.py")
        assert abs(holder.began - time.time()) < 60

    assert objects(moto) == {}
    with cache_of(given).hold(BOB):
        assert cache_of(given).holder().user == "bob"


def test_a_running_operator_keeps_the_lock_beyond_the_silence_limit(given):
    with SharedCache(given, beat=0.3, life=2).hold(ALICE):
        gevent.sleep(5)
        with pytest.raises(RefusedError, match="alice"):
            SharedCache(given, life=2).hold(BOB).__enter__()


def killed(given, *computer):
    """Another operator takes the lock, and its run is killed."""
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, given.inventory, *computer], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        other.kill()
    return other


def test_the_lock_of_a_run_killed_on_this_computer_is_free_at_once(given):
    killed(given)

    assert cache_of(given).holder() is None
    with cache_of(given).hold(BOB):
        assert cache_of(given).holder().user == "bob"


def test_the_lock_of_a_run_killed_elsewhere_is_free_after_the_silence_limit(given):
    other = killed(given, "another/1")

    with pytest.raises(RefusedError, match=f"process {other.pid}"):
        cache_of(given).hold(BOB).__enter__()
    time.sleep(3)
    with SharedCache(given, life=2).hold(BOB):
        assert cache_of(given).holder().user == "bob"


def test_a_run_that_loses_the_lock_is_stopped(moto, given):
    def work():
        with SharedCache(given, beat=0.2).hold(ALICE):
            cache_of(given).free()
            with cache_of(given).hold(BOB):
                gevent.sleep(30)

    with pytest.raises(RefusedError, match="removed this run.s lock"):
        work()

    assert objects(moto) == {}


def test_of_many_at_once_one_gets_the_lock(given):
    def one(number):
        try:
            with cache_of(given).hold(Holder(f"operator{number}", "here", number, "up")):
                gevent.sleep(3)
        except RefusedError:
            return 0
        return 1

    jobs = [gevent.spawn(one, number) for number in range(8)]
    gevent.joinall(jobs, raise_error=True)

    assert sum(job.value for job in jobs) == 1


@pytest.mark.parametrize("number", [1, 2])
def test_an_answer_that_is_lost_loses_no_lock(moto, proxy, given, number):
    proxy.cut_after, proxy.heals = number, True

    with SharedCache(given, beat=0.2).hold(ALICE):
        gevent.sleep(1)
        assert cache_of(given).holder().user == "alice"

    assert objects(moto) == {}


# Through the command line


def ec2(tmp_path, state="s3://ours/clusters"):
    settings = {"machines": "ec2", "ec2": {"region": REGION, "zones": [f"{REGION}a"], "owner": "team",
                "network": "10.78.0.0/16", "ssh_from": ["203.0.113.7/32"]}}  # fmt: skip
    return write(tmp_path / "ec2.py", settings, "['m1']", state)


def test_two_operators_create_the_same_machines_at_once(moto, proxy, tmp_path):
    def vpcs():
        return [v for v in moto.client("ec2").describe_vpcs()["Vpcs"] if not v["IsDefault"]]

    def until(condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)

    path = ec2(tmp_path)
    first = subprocess.Popen([CLUSTERCTL, "up", path, "--yes"], stderr=subprocess.DEVNULL)
    try:
        until(lambda: "clusters/demo/lock" in objects(moto))
        second = subprocess.run(
            [CLUSTERCTL, "up", path, "--yes"],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        # `up` makes all resources, and then waits for SSH, which moto's machines do not have.
        until(lambda: moto.client("ec2").describe_instances()["Reservations"])
        first.send_signal(signal.SIGINT)
        first.wait(60)
    finally:
        first.kill()

    assert second.returncode == RefusedError.exit_code
    assert f"process {first.pid}" in second.stderr
    assert objects(moto) == {}
    assert len(vpcs()) == 1


def test_a_missing_bucket_is_reported_before_anything_is_created(moto, proxy, tmp_path):
    done = subprocess.run(
        [CLUSTERCTL, "up", ec2(tmp_path, "s3://not-there/x"), "--yes"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == MachinesError.exit_code
    assert "there is no bucket not-there" in done.stderr
    assert [v for v in moto.client("ec2").describe_vpcs()["Vpcs"] if not v["IsDefault"]] == []
