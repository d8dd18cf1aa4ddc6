"""The engine on machines with systemd: components, units, sudo, artifacts."""

from __future__ import annotations

import hashlib
import subprocess
import time

import gevent
import pytest
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation

from provision.apply.change import ComponentChange
from provision.apply.delivery import deliver
from provision.apply.delivery_programs import Want
from provision.apply.engine import Engine
from provision.apply.operations.apply import apply
from provision.artifacts.model import ArtifactSet, Ready
from provision.desired.model import Directory, HostFile
from provision.inventory import Draft, HostEntry
from provision.local.progress import Silent
from provision.local.runlog import RunLog
from provision.machines.lab import Lab as Machines
from provision.model.cluster import Cluster, Machine, Role
from provision.model.errors import PhaseError
from provision.model.settings.local import Lab

pytestmark = pytest.mark.lab


class Notes(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


class Ground:
    """Lab machines as a cluster."""

    def __init__(self, directory, kind, names):
        hosts = tuple(HostEntry(name=name, roles=frozenset({Role.MASTER})) for name in names)
        inventory = directory / "inventory.py"
        self.draft = Draft(
            name="enginetest", source="lab", inventory=inventory, lab=Lab(image=kind), hosts=hosts
        )
        Machines().create(self.draft, Silent())
        located = Machines().locate(self.draft)
        machines = tuple(
            Machine(name=n, address=located[n].address, roles=hosts[0].roles, ssh=located[n].ssh)
            for n in names
        )
        self.cluster = Cluster(name="enginetest", machines=machines, inventory=inventory)
        self.known_hosts = directory / "known_hosts"
        self.known_hosts.write_text(
            "".join(f"{m.ssh.hostname} {m.ssh.host_key}\n" for m in machines)
        )


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    ground = Ground(tmp_path_factory.mktemp("full"), "full", ("m1", "m2", "m3"))
    yield ground
    Machines().destroy(ground.draft, Silent())


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    ground = Ground(tmp_path_factory.mktemp("bare"), "bare", ("b1",))
    yield ground
    Machines().destroy(ground.draft, Silent())


@pytest.fixture
def log(tmp_path):
    log = RunLog(tmp_path / "run.log")
    yield log
    log.close()


@pytest.fixture
def engine(ground, log):
    with Engine(ground.cluster, ground.known_hosts, log, timeout=60) as engine:
        yield engine


@operation()
def wait():
    yield StringCommand("sleep 3")


def unit(name: str, command: str, extra: str = "") -> HostFile:
    text = f"[Service]\nExecStart=/bin/sh -c '{command}'\n{extra}[Install]\nWantedBy=multi-user.target\n"
    return HostFile(f"/etc/systemd/system/{name}", text.encode(), 0o644)


def run(engine: Engine, change: ComponentChange, machines=None):
    machines = machines or engine.cluster.machines[:1]
    return engine.run("test", lambda _: apply(changes=(change,), name=change.component), machines)


def out(engine: Engine, command: str, index: int = 0) -> str:
    code, stdout, stderr = engine.shell(engine.cluster.machines[index], command)
    assert code == 0, stderr
    return stdout.strip()


def test_a_component_comes_up_with_user_files_sysctl_unit_and_record(engine):
    change = ComponentChange(
        component="demo",
        users=("demo",),
        directories=(Directory("/etc/demo", 0o750, "demo", "demo"),),
        files=(
            HostFile("/etc/demo/conf", b"hello\n", 0o400, "demo", "demo"),
            unit("demo.service", "touch /run/demo-ran; sleep 1000", "User=root\n"),
        ),
        sysctls=(("net.ipv4.ip_forward", "1"), ("kernel.no_such_key", "1")),
        modules=("no_such_module",),
        start=("demo.service",),
        health="test -e /run/demo-ran",
        record="unit\tdemo.service\tafter\n",
        record_before="unit\tdemo.service\tbefore\n",
    )

    results = run(engine, change, engine.cluster.machines)

    assert all(result.changed for result in results.values())
    for index in range(3):
        assert out(engine, "stat -c '%U:%G %a' /etc/demo /etc/demo/conf", index) == (
            "demo:demo 750\ndemo:demo 400"
        )
        assert out(engine, "systemctl is-active demo; systemctl is-enabled demo", index) == (
            "active\nenabled"
        )
        assert out(engine, "cat /var/lib/clusterctl/record/demo", index).endswith("after")
        assert "nologin" in out(engine, "getent passwd demo", index)
        assert out(engine, "cat /proc/sys/net/ipv4/ip_forward", index) == "1"
        assert out(engine, "ls /var/lib/clusterctl", index) == "lock\nrecord"


def test_an_empty_change_touches_nothing(engine):
    before = engine.metrics.round_trips.copy()

    results = run(engine, ComponentChange(component="demo", health="true"))

    assert not results["m1"].changed
    assert engine.metrics.round_trips == before


def test_a_failed_unit_is_reported_with_its_journal_and_can_be_repaired(engine):
    broken = ComponentChange(
        component="broken",
        files=(unit("broken.service", "echo no space left on device; exit 1"),),
        start=("broken.service",),
        health_timeout=20,
        record="after\n",
        record_before="before\n",
    )

    began = time.monotonic()
    with pytest.raises(PhaseError) as caught:
        run(engine, broken)

    assert time.monotonic() - began < 10
    (failure,) = caught.value.failures
    assert failure.step == "broken: wait until healthy"
    assert "broken.service is failed (failed, exit-code)" in failure.cause
    assert "no space left on device" in failure.journal
    assert out(engine, "cat /var/lib/clusterctl/record/broken") == "before"

    mended = ComponentChange(
        component="broken",
        files=(unit("broken.service", "sleep 1000"),),
        start=("broken.service",),
        record="after\n",
    )
    run(engine, mended)

    assert out(engine, "systemctl is-active broken") == "active"
    assert out(engine, "cat /var/lib/clusterctl/record/broken") == "after"


def test_a_unit_that_comes_up_at_its_second_try_is_no_failure(engine):
    flaky = unit(
        "flaky.service",
        "[ -e /run/flaky ] && exec sleep 1000; touch /run/flaky; exit 1",
        "Restart=always\nRestartSec=1\n",
    )

    run(engine, ComponentChange(
        component="flaky", files=(flaky,), start=("flaky.service",),
        health="systemctl is-active flaky",
    ))  # fmt: skip

    assert out(engine, "systemctl is-active flaky") == "active"


def test_restart_restarts_only_what_is_named(engine):
    units = tuple(unit(f"{name}.service", "sleep 1000") for name in ("one", "two"))
    run(engine, ComponentChange(
        component="pair", files=units, start=("one.service", "two.service")
    ))  # fmt: skip
    show = "systemctl show -p MainPID --value one two"
    before = out(engine, show).split()

    run(engine, ComponentChange(component="pair", restart=("one.service",)))

    after = out(engine, show).split()
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_killed_run_that_reloaded_nothing_is_finished_with_the_new_unit_file(engine):
    run(engine, ComponentChange(
        component="stale", files=(unit("stale.service", "sleep 1000"),), start=("stale.service",)
    ))  # fmt: skip
    out(engine, "sed -i s/1000/2000/ /etc/systemd/system/stale.service")

    run(engine, ComponentChange(component="stale", restart=("stale.service",)))

    assert "2000" in out(
        engine, "tr '\\0' ' ' </proc/$(systemctl show -p MainPID --value stale)/cmdline"
    )


def test_systemd_reads_a_new_unit_file_without_a_reload_and_a_replaced_one_with_it(engine):
    loaded = "systemctl show -p UnitsLoadTimestampMonotonic --value"
    log = "cat /run/fresh-ran"
    before = out(engine, loaded)
    (one, two) = (
        (unit("fresh.service", f"echo {word} >/run/fresh-ran; sleep 1000"),) for word in ("one", "two")
    )  # fmt: skip

    run(engine, ComponentChange(component="fresh", files=one, start=("fresh.service",)))
    assert (out(engine, loaded), out(engine, f"sleep 0.2; {log}")) == (before, "one")
    assert out(engine, "systemctl is-enabled fresh") == "enabled"

    run(engine, ComponentChange(component="fresh", files=two, restart=("fresh.service",)))
    assert out(engine, f"sleep 0.2; {log}") == "two"
    assert out(engine, loaded) != before


def artifact(directory, name: str, content: bytes) -> Ready:
    path = directory / name
    path.write_bytes(content)
    return Ready(name, "1", "amd64", hashlib.sha256(content).hexdigest(), local=path)


def test_artifacts_reach_every_machine_through_a_seed_that_is_cleaned_up(engine, tmp_path):
    tools = {name: artifact(tmp_path, name, name.encode() * 100_000) for name in ("big", "tool")}
    artifacts = ArtifactSet("build", {(n, "amd64"): ready for n, ready in tools.items()})
    progress = Notes()
    wants = {
        "m1": (Want("tool", "/usr/local/bin/tool", "amd64"),),
        "m2": tuple(Want(n, f"/opt/new/bin/{n}", "amd64") for n in tools),
        "m3": (Want("big", "/usr/local/bin/big", "amd64"),),
    }
    before = engine.metrics.sent.copy()

    deliver(engine, wants, artifacts, progress)

    assert out(engine, "sha256sum </usr/local/bin/tool", 0).split()[0] == tools["tool"].pin
    assert out(engine, "stat -c %a /opt/new/bin/big", 1) == "755"
    assert out(engine, "sha256sum </usr/local/bin/big", 2).split()[0] == tools["big"].pin
    assert progress.notes == []
    for index in range(3):
        assert out(engine, "systemctl is-active clusterctl-artifacts || true", index) == "inactive"
        assert "artifacts" not in out(engine, "ls /var/lib/clusterctl", index)
    sent = {name: engine.metrics.sent[name] - before[name] for name in wants}
    assert max(sent, key=sent.get) == "m2"


def test_where_the_seed_is_behind_a_firewall_each_gets_its_own_copy(engine, tmp_path):
    ready = artifact(tmp_path, "walled", b"walled" * 1000)
    artifacts = ArtifactSet("build", {("walled", "amd64"): ready})
    progress = Notes()
    wants = {
        m.name: (Want("walled", "/usr/local/bin/walled", "amd64"),) for m in engine.cluster.machines
    }
    block = (
        "nft add table ip wall; nft 'add chain ip wall in { type filter hook input priority 0; }'"
    )
    out(engine, f"{block}; nft add rule ip wall in iifname != lo tcp dport 7490 drop")

    try:
        deliver(engine, wants, artifacts, progress)
    finally:
        out(engine, "nft delete table ip wall")

    assert [note.split(":")[0] for note in progress.notes] == ["m2, m3"]
    for index in range(3):
        assert out(engine, "sha256sum </usr/local/bin/walled", index).split()[0] == ready.pin


def test_an_artifact_that_is_not_what_its_pin_says_is_installed_nowhere(engine, tmp_path):
    good = artifact(tmp_path, "forged", b"good")
    (tmp_path / "forged").write_bytes(b"evil")
    artifacts = ArtifactSet("build", {("forged", "amd64"): good})
    wants = {
        m.name: (Want("forged", "/usr/local/bin/forged", "amd64"),) for m in engine.cluster.machines
    }

    with pytest.raises(PhaseError) as caught:
        deliver(engine, wants, artifacts, Silent())

    assert [f.machine for f in caught.value.failures] == ["m1", "m2", "m3"]
    for index, failure in enumerate(caught.value.failures):
        assert f"expected SHA-256 {good.pin}, got" in failure.cause
        assert out(engine, "ls /usr/local/bin/forged* 2>/dev/null | wc -l", index) == "0"
    assert out(engine, "systemctl is-active clusterctl-artifacts || true") == "inactive"


def test_a_machine_that_dies_in_a_phase_is_reported_and_the_others_finish(ground, log):
    with Engine(ground.cluster, ground.known_hosts, log, timeout=60) as engine:
        engine.fetch(lambda _: "true", engine.cluster.machines)
        container = Machines().container(ground.draft, "m3")
        killer = subprocess.Popen(["sh", "-c", f"sleep 1; podman kill {container} >/dev/null"])
        try:
            with pytest.raises(PhaseError) as caught:
                engine.run("dying", lambda _: wait(name="wait"), engine.cluster.machines)
        finally:
            killer.wait()
            Machines().create(ground.draft, Silent())

    assert [f.machine for f in caught.value.failures] == ["m3"]
    assert "the connection to m3 broke" in caught.value.failures[0].cause


def test_sudo_makes_everything_root_and_its_password_shows_nowhere(bare, log, tmp_path):
    (machine,) = bare.cluster.machines
    password = "correct-horse"
    with Engine(bare.cluster, bare.known_hosts, log, timeout=60) as engine:
        assert engine.fetch(lambda _: "id -u", (machine,))["b1"].output == "0"
        assert engine.shell(machine, "id -u; cat", b"in")[1] == "0\nin"
        _, rules, _ = engine.shell(machine, f"grep -rl '^{machine.ssh.user}' /etc/sudoers.d")
        user, rule = machine.ssh.user, rules.strip()
        engine.shell(
            machine,
            f"cp {rule} /root/rule; echo {user}:{password} | chpasswd; "
            f"echo '{user} ALL=(ALL) ALL' >{rule}.new; chmod 440 {rule}.new; mv {rule}.new {rule}",
        )
    try:
        with Engine(bare.cluster, bare.known_hosts, log, timeout=60) as engine:
            refused = engine.fetch(lambda _: "id -u", (machine,))["b1"]
            assert refused.error == f"sudo wants a password of {user} on b1"
            assert "NOPASSWD" in refused.hint
            with pytest.raises(PhaseError) as caught:
                run(engine, ComponentChange(component="c", record="r\n"), (machine,))
            assert caught.value.failures[0].hint == refused.hint

        wrong = engine_with(bare, log, "wrong")
        with wrong as engine:
            answer = engine.fetch(lambda _: "id -u", (engine.cluster.machines[0],))["b1"]
            assert answer.error == f"sudo refused the password of {user} on b1"

        with engine_with(bare, log, password) as engine:
            (machine,) = engine.cluster.machines
            change = ComponentChange(
                component="c", files=(HostFile("/root/secret", b"content\n"),), health="sleep 2"
            )
            phase = gevent.spawn(run, engine, change, (machine,))
            gevent.sleep(1)
            listing = engine.shell(
                machine, "ps axww -o args; cat /proc/[0-9]*/cmdline | tr '\\0' ' '"
            )[1]
            phase.get()
            code, content, _ = engine.shell(machine, "cat /root/secret -", b"and stdin")
            fetched = engine.fetch(lambda _: "id -u", (machine,))["b1"]
            assert (code, content) == (0, "content\nand stdin")
            assert (fetched.output, fetched.error) == ("0", "")
            assert engine.metrics.round_trips == {"b1": 4}
            assert "clusterctl-password-end" in listing
            assert password not in listing
            assert password not in log.path.read_text().replace(f"{user}:{password} | chpasswd", "")
    finally:
        with engine_with(bare, log, password) as engine:
            engine.shell(engine.cluster.machines[0], f"cp /root/rule {rule}")
    with engine_with(bare, log, password) as engine:
        # If sudo does not ask for the password, the password does not reach the command.
        code, echoed, _ = engine.shell(engine.cluster.machines[0], "id -u; cat", b"in")
        assert (code, echoed) == (0, "0\nin")


def engine_with(bare, log, password: str) -> Engine:
    (machine,) = bare.cluster.machines
    ssh = machine.ssh.model_copy(update={"sudo_password": password})
    machines = (machine.model_copy(update={"ssh": ssh}),)
    cluster = bare.cluster.model_copy(update={"machines": machines})
    return Engine(cluster, bare.known_hosts, log, timeout=60)
