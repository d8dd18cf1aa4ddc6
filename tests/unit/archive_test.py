from __future__ import annotations

import base64
import grp
import io
import os
import pwd
import re
import shutil
import subprocess
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.apply.change import ComponentChange
from provision.apply.install import COMMAND, COMPONENT, JOURNAL, command, payload, program
from provision.desired.model import Directory, HostFile
from provision.model import paths
from provision.pki.leaf import Authority, Issued, Leaf, Usage

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


def file(path: Path, content: bytes, mode: int = 0o644) -> HostFile:
    return HostFile(str(path), content, mode, USER, GROUP)


def issued(root: Path) -> Issued:
    leaf = Leaf(
        name="etcd",
        authority=next(iter(Authority)),
        common_name="etcd",
        usages=frozenset({Usage.SERVER}),
        cert_path=f"{root}/etcd.crt",
        key_path=f"{root}/etcd.key",
        owner=USER,
        group=GROUP,
    )
    return Issued(leaf, b"certificate\n", b"key\n")


class Machine:
    """A directory that stands for a machine: the very command runs there."""

    def __init__(self, root: Path) -> None:
        self.state = root / "state"
        self.record = self.state / "record"

    def apply(self, *changes: ComponentChange, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", "-c", command(str(self.state))],
            check=False,
            input=payload(changes, str(self.record)),
            env=os.environ | environ,
            capture_output=True,
            text=True,
        )

    def left(self) -> list[str]:
        return sorted(p.name for p in self.state.iterdir() if p.name not in {"lock", "record"})


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def other(root: Path) -> ComponentChange:
    """A change of another component."""
    files = (file(root / "o-1", b"1"), file(root / "o-2", b"2"))
    return ComponentChange(component="o", files=files, record="o\n", record_before="o before\n")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_files_and_directories_come_with_content_mode_and_owner(machine, tmp_path):
    etc = tmp_path / "etc"
    change = ComponentChange(
        component="etcd",
        directories=(Directory(str(etc), 0o750, USER, GROUP),),
        files=(
            file(etc / "conf", b"a: 1\n"),
            file(etc / "with 'odd' $name", bytes(range(256)), 0o400),
        ),
        issued=(issued(etc),),
        record="file\tx\n",
    )

    done = machine.apply(change)

    assert (done.returncode, done.stderr) == (0, "")
    assert mode(etc) == 0o750
    assert (etc / "conf").read_bytes() == b"a: 1\n"
    assert (etc / "with 'odd' $name").read_bytes() == bytes(range(256))
    assert {p.name: oct(mode(p)) for p in etc.iterdir()} == {
        "conf": "0o644",
        "with 'odd' $name": "0o400",
        "etcd.crt": "0o644",
        "etcd.key": "0o600",
    }
    assert (etc / "etcd.crt").read_text() == "certificate\n"
    assert (etc / "etcd.key").read_text() == "key\n"
    assert (machine.record / "etcd").read_text() == "file\tx\n"
    assert machine.left() == []


def test_a_second_run_of_the_same_change_succeeds_and_changes_no_content(machine, tmp_path):
    change = ComponentChange(
        component="c",
        directories=(Directory(str(tmp_path / "d"), 0o755, USER, GROUP),),
        files=(file(tmp_path / "d/f", b"x"),),
        remove=(str(tmp_path / "gone"),),
        record="r\n",
    )
    (tmp_path / "gone").touch()

    assert [machine.apply(change).returncode for _ in range(2)] == [0, 0]

    assert (tmp_path / "d/f").read_bytes() == b"x"
    assert not (tmp_path / "gone").exists()


def test_a_symbolic_link_in_the_way_is_replaced_and_its_target_left_alone(machine, tmp_path):
    target = tmp_path / "target"
    target.write_text("somebody else's")
    (tmp_path / "f").symlink_to(target)

    machine.apply(ComponentChange(component="c", files=(file(tmp_path / "f", b"ours"),)))

    assert not (tmp_path / "f").is_symlink()
    assert (tmp_path / "f").read_bytes() == b"ours"
    assert target.read_text() == "somebody else's"


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_a_key_is_never_readable_by_others_not_even_while_it_is_written(machine, tmp_path):
    trace = tmp_path / "trace"
    change = ComponentChange(component="c", issued=(issued(tmp_path),))

    subprocess.run(
        ["strace", "-f", "-qq", "-o", trace, "-e", "trace=openat,open,creat,fchmod,chmod,fchmodat", "sh", "-c", command(str(machine.state))],
        input=payload((change,), str(machine.record)), text=True, check=True,
    )  # fmt: skip

    made = re.findall(r'etcd\.key\.clusterctl-new", [^)]*O_CREAT[^)]*, (0\d+)', trace.read_text())
    assert made == ["0600"]
    assert mode(tmp_path / "etcd.key") == 0o600


@pytest.mark.parametrize("others", [(), (other,)], ids=["alone", "with another"])
@pytest.mark.parametrize("victim", ["install", "sync", "mv", "rm"])
@pytest.mark.parametrize("call", range(1, 9))
def test_a_run_killed_anywhere_leaves_nothing_half_written_and_the_next_finishes(
    machine, tmp_path, others, victim, call
):
    """A `victim` on PATH kills the program's shell at its n-th call."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "a").write_text("old a")
    (etc / "gone").write_text("old")
    change = ComponentChange(
        component="c",
        directories=(Directory(str(etc / "d"), 0o755, USER, GROUP),),
        files=(file(etc / "a", b"new a"), file(etc / "d/b", b"new b")),
        issued=(issued(etc),),
        remove=(str(etc / "gone"),),
        record_before="unit\tx\told\n",
        record="unit\tx\tnew\n",
    )
    shims = tmp_path / "shims"
    shims.mkdir()
    shim = shims / victim
    shim.write_text(
        f"#!/bin/sh\necho >> {shims}/count\n"
        f'[ $(wc -l < {shims}/count) != {call} ] || kill -KILL $PPID\nexec {shutil.which(victim)} "$@"\n'
    )
    shim.chmod(0o755)

    changes = (*(make(tmp_path) for make in others), change)
    killed = machine.apply(*changes, PATH=f"{shims}:{os.environ['PATH']}")

    def content(path: Path) -> bytes | None:
        return path.read_bytes() if path.exists() else None

    assert content(etc / "a") in {b"old a", b"new a"}
    assert content(etc / "d/b") in {None, b"new b"}
    assert content(etc / "etcd.key") in {None, b"key\n"}
    recorded = machine.record / "c"
    if killed.returncode != 0 and recorded.exists() and "old" in recorded.read_text():
        gone = (etc / "gone").exists()
        assert not gone or f"leftover\t{etc}/gone\n" in recorded.read_text()
    if content(etc / "etcd.key"):
        assert content(etc / "etcd.crt"), "a key came before its certificate"
    if any((content(etc / "d/b"), content(etc / "etcd.crt"), content(etc / "a") == b"new a")):
        assert recorded.exists(), "a file came before its record"

    done = machine.apply(*changes)

    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(p.name for p in etc.iterdir()) == ["a", "d", "etcd.crt", "etcd.key"]
    assert content(etc / "a") == b"new a"
    assert recorded.read_text() == "unit\tx\tnew\n"
    assert sorted(p.name for p in machine.record.iterdir()) == ["c", "o"][: len(changes)]
    assert machine.left() == []


def test_a_file_that_cannot_be_placed_fails_the_run_and_the_final_record_is_not_written(
    machine, tmp_path
):
    change = ComponentChange(
        component="c",
        files=(file(tmp_path / "missing/f", b"x"),),
        record_before="before\n",
        record="after\n",
    )

    done = machine.apply(change)

    assert done.returncode != 0
    assert f"{tmp_path}/missing/f" in done.stderr
    assert (machine.record / "c").read_text() == "before\n"
    assert machine.left() == []


def test_a_failed_health_check_shows_its_output(machine, tmp_path):
    change = ComponentChange(
        component="c", health="echo connection refused; false", health_timeout=1, record="after\n",
        record_before="before\n",
    )  # fmt: skip

    done = machine.apply(change)

    assert done.returncode == 1
    assert "not healthy after 1 s\nconnection refused" in done.stderr
    assert (machine.record / "c").read_text() == "before\n"


def test_components_are_changed_in_order_and_each_is_recorded_when_it_is_healthy(machine, tmp_path):
    log, record = tmp_path / "log", machine.record

    def change(name: str, health: str) -> ComponentChange:
        health = f"echo {name} $(cat {record}/a {record}/b {record}/c) >>{log}; {health}"
        return ComponentChange(
            component=name, health=health, files=(file(tmp_path / name, b"new"),), health_timeout=1,
            record=f"{name}-after\n", record_before=f"{name}-before\n",
        )  # fmt: skip

    done = machine.apply(
        change("a", "true"), change("b", "echo refused; false"), change("c", "true")
    )

    # c was not begun, but the next run knows that it has to be.
    looks = list(dict.fromkeys(log.read_text().splitlines()))
    assert looks == ["a a-before b-before c-before", "b a-after b-before c-before"]
    assert (done.returncode, done.stderr) == (1, "not healthy after 1 s\nrefused\n")
    steps = [line for line in done.stdout.splitlines() if line.startswith(COMPONENT)]
    assert steps[-1] == f"{COMPONENT}b"
    assert [(record / name).read_text() for name in "abc"] == [
        "a-after\n",
        "b-before\n",
        "c-before\n",
    ]
    assert mode(record / "a") == mode(record / "b") == 0o644
    assert machine.left() == []

    assert (
        machine.apply(change("a", "true"), change("b", "true"), change("c", "true")).returncode == 0
    )
    assert [(record / name).read_text() for name in "abc"] == [
        "a-after\n",
        "b-after\n",
        "c-after\n",
    ]


def test_systemd_reloads_at_most_once_whatever_the_number_of_components():
    one, two = (
        HostFile(f"/etc/systemd/system/{name}", b"") for name in ("one.service", "two.timer")
    )
    drop_in = HostFile("/etc/systemd/system/one.service.d/more.conf", b"")
    changes = [
        ComponentChange(component="one", files=(one, drop_in), start=("one.service",)),
        ComponentChange(component="two", files=(two,), restart=("two.service",)),
    ]

    body = program(changes).rsplit("}\n", 1)[1]

    assert body.count("fresh") == 1
    order = [
        f"replaces {one.path} {drop_in.path} {two.path}\n",
        "mv -fT /etc/systemd/system/one.service",
        "enable one.service\n",
        "fresh one.service two.timer two.service\n",
        "unit start one",
        "settle one",
        "unit restart two",
        "settle two",
    ]
    at = [body.index(step) for step in order]
    assert at == sorted(at)


@pytest.mark.parametrize(
    ("there", "shown", "reloads"),
    [
        (False, "no\nloaded", False),
        (True, "no\nloaded", True),  # a new file may have the same time, or an earlier one
        (False, "yes\nloaded", True),  # a killed run put it in place
        (False, "no\nnot-found", True),  # systemd looked for it in vain, for another unit
    ],
)
def test_systemd_reloads_where_it_may_know_an_old_unit_file(
    machine, tmp_path, monkeypatch, there, shown, reloads
):
    monkeypatch.setattr("provision.model.paths.UNITS", str(tmp_path))
    unit = file(tmp_path / "c.service", b"new")
    if there:
        Path(unit.path).write_text("old")
    shims = tmp_path / "shims"
    shims.mkdir()
    (shims / "systemctl").write_text(
        f'#!/bin/sh\necho "$*" >>{shims}/calls\ncase $1 in show) printf "{shown}\n" ;; is-active) echo active ;; esac\n'
    )
    (shims / "systemctl").chmod(0o755)

    done = machine.apply(
        ComponentChange(component="c", files=(unit,), start=("c.service",)),
        PATH=f"{shims}:{os.environ['PATH']}",
    )

    assert (done.returncode, done.stderr) == (0, "")
    calls = (shims / "calls").read_text().splitlines()
    assert ("daemon-reload" in calls) == reloads
    assert calls[-4:] == [
        "--quiet start c.service",
        "show -p NRestarts --value c.service",
        "is-active c.service",
        "show -p NRestarts --value c.service",
    ]


@pytest.mark.parametrize(
    ("restarts", "health", "ends"),
    [
        ("0 0 0 0", "true", 0),
        ("0 1 1 1 1", "true", 0),  # healthy before and after its restart interval
        ("7 7 7 7", "true", 0),  # its restarts are from before
        ("7 7 8 8 8", "true", 0),
        ("0 2 2 2 2", "false", 1),  # healthy at no time
        ("0 1 2 2 2", "true", 1),  # healthy for a moment after each restart
    ],
)
def test_a_unit_that_ends_again_and_again_fails_at_once_with_its_last_words(
    machine, tmp_path, restarts, health, ends
):
    """Fakes of systemctl, whose restart count grows from call to call, and of journalctl."""
    shims = tmp_path / "shims"
    shims.mkdir()
    count = tmp_path / "count"
    count.write_text(restarts.replace(" ", "\n") + "\n")
    (shims / "systemctl").write_text(
        f"#!/bin/sh\ncase $* in *NRestarts*) head -n 1 {count}; "
        f"[ $(wc -l <{count}) -lt 2 ] || sed -i 1d {count} ;; is-active*) echo active ;; esac\n"
    )
    (shims / "journalctl").write_text("#!/bin/sh\necho could not detect clock speed\n")
    for shim in shims.iterdir():
        shim.chmod(0o755)
    change = ComponentChange(component="c", start=("c.service",), health=health, health_timeout=60)

    begin = time.monotonic()
    done = machine.apply(change, PATH=f"{shims}:{os.environ['PATH']}")

    assert done.returncode == ends, done.stderr
    assert time.monotonic() - begin < 50
    if ends:
        assert f"{JOURNAL}could not detect clock speed" in done.stderr
        assert "restarts: 2" in done.stderr


def test_health_is_awaited(machine, tmp_path):
    ready = tmp_path / "ready"
    change = ComponentChange(
        component="c", health=f"test -e {ready} || {{ sleep 0.3; touch {ready}; false; }}", record="after\n"
    )  # fmt: skip

    assert machine.apply(change).returncode == 0
    assert (machine.record / "c").read_text() == "after\n"


def test_two_runs_on_one_machine_go_one_after_the_other(machine, tmp_path):
    log = tmp_path / "log"
    change = ComponentChange(
        component="c", health=f"echo in >> {log}; sleep 0.5; echo out >> {log}"
    )
    argv = ["sh", "-c", command(str(machine.state))]
    runs = [subprocess.Popen(argv, stdin=subprocess.PIPE, text=True) for _ in range(2)]

    # Both have all they need before either is waited for: whichever comes first must not wait.
    for run in runs:
        run.stdin.write(payload((change,)))
        run.stdin.close()
    assert [run.wait(60) for run in runs] == [0, 0]

    assert log.read_text().split() == ["in", "out", "in", "out"]


def test_a_cut_off_payload_changes_nothing(machine, tmp_path):
    change = ComponentChange(component="c", files=(file(tmp_path / "f", os.urandom(100_000)),))
    text = payload((change,))

    done = subprocess.run(
        ["sh", "-c", command(str(machine.state))],
        check=False,
        input=text[: len(text) // 2],
        capture_output=True,
        text=True,
    )

    assert done.returncode != 0
    assert not (tmp_path / "f").exists()


def test_the_same_change_gives_the_same_bytes(tmp_path):
    change = ComponentChange(
        component="c", files=(file(tmp_path / "f", b"x" * 1000),), record="r\n"
    )

    assert payload((change,)) == payload((replace(change),))


def test_nothing_of_a_files_content_is_in_the_command_or_in_a_repr(tmp_path):
    change = ComponentChange(
        component="c", files=(file(tmp_path / "f", b"hunter2"),), issued=(issued(tmp_path),)
    )

    assert "hunter2" not in repr(change) + COMMAND + program((change,))
    assert "key\\n" not in repr(change)


def test_a_change_with_nothing_to_do_is_empty():
    nothing = ComponentChange(component="c", health="true", health_timeout=5)

    assert nothing.empty
    assert not replace(nothing, record="r\n").empty
    assert not replace(nothing, restart=("c.service",)).empty


def test_units_are_restarted_only_after_files_kernel_and_daemon_reload(tmp_path):
    change = ComponentChange(
        component="c",
        files=(file(tmp_path / "f", b""),),
        sysctls=(("net.ipv4.ip_forward", "1"), ("net/ipv4/conf/eth0.1/rp_filter", "0")),
        modules=("br_netfilter",),
        enable=("e.service",),
        start=("s.service",),
        restart=("r.service",),
        reload=("l.service",),
        record="r\n",
    )

    body = program((change,)).rsplit("}\n", 1)[1]

    order = [
        "records ",
        "stage 0",
        "sync",
        "mv -fT",
        "load br_netfilter",
        "kernel /proc/sys/net/ipv4/ip_forward 1",
        "kernel /proc/sys/net/ipv4/conf/eth0.1/rp_filter 0",
        "systemctl --quiet --no-reload enable e.service s.service",
        "fresh r.service l.service s.service",
        "limit 120",
        "unit restart r.service",
        "unit reload-or-restart l.service",
        "unit start s.service",
        "settle r.service l.service s.service",
        'mv -fT "$work/after/c"',
    ]
    at = [body.index(step) for step in order]
    assert at == sorted(at)


class Kernel:
    """Files that stand for kernel settings: the very program sets them, and writes its record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "record"
        self.conf = root / "sysctl.conf"

    def put(self, name: str, value: str) -> Path:
        path = self.root / "proc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value + "\n")
        return path

    def set(self, *sysctls: tuple[str, str]) -> list[list[str]]:
        """The lines of the record afterwards."""
        work = self.root / "work"
        for stage in ("before", "after"):
            (work / stage).mkdir(parents=True, exist_ok=True)
            (work / stage / "c").write_text("r\n")
        text = program((ComponentChange("c", sysctls=sysctls, record="r\n"),), str(self.record))
        text = text.replace("/proc/sys", f"{self.root}/proc").replace(paths.SYSCTLS, str(self.conf))
        subprocess.run(["sh", "-c", text, "run", str(work)], check=True)
        lines = (self.record / "kernel").read_text().splitlines()
        return [line.split("\t") for line in lines]


def test_the_record_has_kernel_settings_as_they_were_before_the_first_change(tmp_path):
    kernel = Kernel(tmp_path)
    forward, panic = kernel.put("net/ipv4/ip_forward", "0"), kernel.put("kernel/panic", "10")
    settings = (("net.ipv4.ip_forward", "1"), ("kernel.panic", "10"), ("kernel.missing", "1"))
    lines = [["sysctl", str(forward), "0", "1"], ["sysctl", str(panic), "10", "10"]]

    assert kernel.set(*settings) == lines
    assert forward.read_text() == "1\n"
    kernel.conf.write_text("".join(f"{key} = {value}\n" for key, value in settings))
    assert kernel.set(*settings) == lines
    assert kernel.set(("kernel.panic", "20")) == [lines[0], ["sysctl", str(panic), "10", "20"]]


def test_a_kernel_setting_of_an_older_clusterctl_has_no_value_before(tmp_path):
    kernel = Kernel(tmp_path)
    kernel.put("net/ipv4/ip_forward", "1")
    panic = kernel.put("kernel/panic", "0")
    kernel.conf.write_text("net.ipv4.ip_forward = 1\n")

    found = kernel.set(("net.ipv4.ip_forward", "1"), ("kernel.panic", "10"))

    assert found == [["sysctl", str(panic), "0", "10"]]


@given(
    st.binary(max_size=2000),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1),
)
def test_a_payload_holds_every_content_whatever_the_name(content, name):
    change = ComponentChange(component="c", files=(HostFile(f"/etc/{name}", content),))

    raw = base64.b64decode(payload((change,)))

    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        member = tar.extractfile("files/0")
        assert member is not None
        assert member.read() == content


def test_the_program_is_posix_sh(tmp_path):
    change = ComponentChange(component="c", users=("etcd",), start=("c.service",), record="r\n")

    for shell in ("sh", "bash", "dash"):
        if shutil.which(shell):
            subprocess.run([shell, "-n"], input=program((change,)), text=True, check=True)


def test_a_path_recreated_within_a_leftover_is_not_recorded_as_removed(tmp_path):
    change = ComponentChange(
        component="kubelet",
        remove=("/var/lib/kubelet/pki/kubelet-client-current.pem", "/etc/kubelet.old"),
        record="leftover\t/var/lib/kubelet\n",
    )
    raw = base64.decodebytes(payload((change,), str(tmp_path)).encode())
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        before = tar.extractfile("before/kubelet").read().decode()
    assert before == "leftover\t/var/lib/kubelet\nleftover\t/etc/kubelet.old\n"
