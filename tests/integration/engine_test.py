from __future__ import annotations

import hashlib
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

import psutil
import pytest
from pyinfra.api.command import StringCommand
from pyinfra.api.operation import operation
from pyinfra.context import ctx_host, ctx_state, host

from provision.apply.engine import Engine
from provision.apply.operations import deliver
from provision.local.runlog import RunLog
from provision.model.cluster import Cluster, Machine
from provision.model.errors import ClusterctlError, PhaseError, UnreachableError
from provision.model.settings.network import HttpProxy


@operation()
def run(command: str, stdin: str = ""):
    yield StringCommand(command, _stdin=stdin)


@operation()
def nothing():
    host.noop("all is as it should be")
    return
    yield


class Recorder:
    def __init__(self) -> None:
        self.updates: list[tuple[str, str]] = []
        self.finished: dict[str, bool] = {}

    def phase(self, name, summary, subjects):
        return nullcontext()

    def update(self, subject, text):
        self.updates.append((subject, text))

    def done(self, subject, text="", *, failed=False):
        self.finished[subject] = failed

    def note(self, text): ...


@pytest.fixture
def log(tmp_path):
    log = RunLog(tmp_path / "logs" / "run.log")
    yield log
    log.close()


@pytest.fixture
def engine(ground, log):
    with Engine(ground.cluster(), ground.known_hosts, log, timeout=60) as engine:
        yield engine


def on(engine: Engine) -> tuple[Machine, ...]:
    return engine.cluster.machines


def channels(server) -> int:
    """Number of commands that this sshd has run, from its own log."""
    return len(re.findall(r"server_input_channel_req: .*request exec", server.log))


def connections(server) -> int:
    return len(re.findall(r"Accepted publickey", server.log))


def test_a_phase_runs_its_operations_on_every_machine_and_says_what_changed(engine):
    progress = Recorder()

    def deploy(machine):
        run(f"echo {machine.name}", name="say the name")
        nothing(name="do nothing")

    results = engine.run("names", deploy, on(engine), progress)

    assert list(results) == ["m1", "m2", "m3"]
    for name, result in results.items():
        assert [(o.name, o.changed, o.output) for o in result.operations] == [
            ("say the name", True, name),
            ("do nothing", False, ""),
        ]
    assert progress.finished == {"m1": False, "m2": False, "m3": False}
    assert engine.metrics.phases[0][0] == "names"


def test_a_dry_run_executes_nothing_and_says_what_would_change(engine, tmp_path):
    def deploy(machine):
        run(f"touch {tmp_path}/{machine.name}", name="touch")
        nothing(name="do nothing")

    results = engine.run("dry", deploy, on(engine), dry=True)

    assert [[o.changed for o in r.operations] for r in results.values()] == [[True, False]] * 3
    assert list(tmp_path.glob("m*")) == []


def test_one_failing_machine_does_not_stop_the_others_and_all_failures_are_reported(
    engine, tmp_path
):
    progress = Recorder()

    def deploy(machine):
        bad = machine.name in {"m1", "m3"}
        run(f"echo ro fs of {machine.name} >&2; exit 3" if bad else "true", name="first")
        run(f"touch {tmp_path}/{machine.name}", name="second")

    with pytest.raises(PhaseError) as caught:
        engine.run("mixed", deploy, on(engine), progress)

    assert [(f.machine, f.step, f.cause) for f in caught.value.failures] == [
        ("m1", "first", "ro fs of m1"),
        ("m3", "first", "ro fs of m3"),
    ]
    assert str(engine.log.path) in caught.value.hint
    assert [p.name for p in tmp_path.glob("m*")] == ["m2"]
    assert progress.finished == {"m1": True, "m2": False, "m3": True}


def test_a_failure_carries_the_step_and_the_journal_that_the_program_sent(engine):
    program = (
        "echo 'clusterctl: start etcd.service'; echo 'clusterctl-journal: no space left' >&2;"
        "echo 'etcd.service is failed' >&2; exit 1"
    )
    progress = Recorder()

    with pytest.raises(PhaseError) as caught:
        engine.run("etcd", lambda _: run(program, name="etcd"), on(engine)[:1], progress)

    (failure,) = caught.value.failures
    assert failure.step == "etcd: start etcd.service"
    assert failure.cause == "etcd.service is failed"
    assert failure.journal == "no space left"
    assert ("m1", "start etcd.service") in progress.updates


def test_a_mistake_in_a_deploy_surfaces_as_itself_and_leaves_no_context_behind(engine):
    with pytest.raises(ZeroDivisionError):
        engine.run("bug", lambda _: 1 / 0, on(engine))

    assert not ctx_state.isset()
    assert not ctx_host.isset()
    assert engine.run("after", lambda _: run("true"), on(engine)).keys() == {"m1", "m2", "m3"}


def test_a_command_that_takes_too_long_fails_and_the_next_phase_still_runs(engine):
    def deploy(machine):
        run("sleep 30", name="slow", _timeout=1)

    began = time.monotonic()
    with pytest.raises(PhaseError, match="no end after 1 s"):
        engine.run("slow", deploy, on(engine)[:1])

    assert time.monotonic() - began < 5
    engine.run("after", lambda _: run("true"), on(engine)[:1])


def test_connections_are_kept_from_phase_to_phase(engine, ground):
    before = [connections(s) for s in ground.servers]

    for name in ("one", "two", "three"):
        engine.run(name, lambda _: run("true"), on(engine))
    engine.fetch(lambda _: "true", on(engine))
    engine.shell(on(engine)[0], "true")

    assert [connections(s) - b for s, b in zip(ground.servers, before, strict=True)] == [1, 1, 1]


def test_a_connection_that_died_between_phases_is_made_anew(make_server, ground, tmp_path):
    server = make_server(ground.key.with_suffix(".pub"))
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"[127.0.0.1]:{server.port} {server.host_key}\n")
    cluster = ground.cluster(ground.machine(0, port=server.port))
    with Engine(cluster, hosts, None, timeout=60) as engine:
        engine.run("before", lambda _: run("true"), cluster.machines)
        server.stop()
        server.start()
        engine.run("after", lambda _: run("true"), cluster.machines)
        assert engine.shell(cluster.machines[0], "echo here") == (0, "here\n", "")

    assert connections(server) == 2


def test_fetch_costs_exactly_one_channel_a_machine(engine, ground):
    before = [channels(s) for s in ground.servers]

    answers = engine.fetch(lambda m: f"echo {m.name}; id -u", on(engine))

    assert {n: a.output for n, a in answers.items()} == {
        f"m{i}": f"m{i}\n{os.getuid()}" for i in (1, 2, 3)
    }
    assert [channels(s) - b for s, b in zip(ground.servers, before, strict=True)] == [1, 1, 1]
    assert engine.metrics.round_trips == {"m1": 1, "m2": 1, "m3": 1}


def test_fetch_says_when_the_question_was_sent_and_when_the_answer_began(engine):
    asked = time.time()

    answers = engine.fetch(lambda _: "date +%s.%N; sleep 3; date +%s.%N", on(engine)[:1])

    answer = answers["m1"]
    began, ended = map(float, answer.output.split())
    assert asked <= answer.sent_at <= began <= answer.received_at < ended


def test_fetch_gives_an_error_entry_where_a_machine_cannot_be_reached(ground):
    machines = (ground.machine(0), ground.machine(1, port=1), ground.machine(2))
    cluster = ground.cluster(*machines)
    with Engine(cluster, ground.known_hosts, None, timeout=60) as engine:
        answers = engine.fetch(
            lambda m: "echo out; exit 4" if m.name == "m3" else "echo out", machines
        )

    assert (answers["m1"].output, answers["m1"].error) == ("out", "")
    assert answers["m2"].output == ""
    assert "connection refused" in answers["m2"].error
    assert "ssh_port" in answers["m2"].hint
    assert (answers["m3"].output, answers["m3"].error) == ("out\n", "exit status 4")


def test_fetch_brings_back_large_output_whole(engine):
    answers = engine.fetch(lambda _: "seq 1 200000", on(engine))

    expected = "\n".join(str(n) for n in range(1, 200001))
    assert all(a.output == expected for a in answers.values())


def test_shell_returns_status_output_and_errors_and_feeds_binary_stdin(engine):
    content = bytes(range(256)) * 10_000
    code, out, err = engine.shell(on(engine)[0], "sha256sum; echo oops >&2; exit 7", content)

    assert (code, err) == (7, "oops\n")
    assert out.split()[0] == hashlib.sha256(content).hexdigest()


def test_a_command_that_does_not_read_its_stdin_does_not_hang(engine):
    assert engine.shell(on(engine)[0], "exit 5", b"x" * 50_000_000)[0] == 5


def test_stream_sends_files_one_after_the_other_and_counts_the_bytes(engine, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(5_000_000))
    seen: list[int] = []

    code, _, err = engine.stream(
        on(engine)[0], f"cat > {tmp_path}/copy", (b"head\n", big), sent=seen.append
    )

    assert (code, err) == (0, "")
    assert (tmp_path / "copy").read_bytes() == b"head\n" + big.read_bytes()
    assert seen[-1] == 5_000_005
    assert len(seen) == 6
    assert engine.metrics.sent["m1"] >= 5_000_005


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd")])
def test_an_unreadable_local_file_ends_the_command_at_once_with_that_error(engine, error):
    def source():
        yield b"begin\n"
        raise error

    began = time.monotonic()
    with pytest.raises((ClusterctlError, ValueError), match=re.escape(str(error))) as caught:
        engine.stream(on(engine)[0], "cat; sleep 30", source())

    assert time.monotonic() - began < 10
    assert not isinstance(caught.value, UnreachableError)


def connect_failure(machine: Machine, known_hosts: Path) -> UnreachableError:
    cluster = Cluster(name="test", machines=(machine,), inventory=Path("/dev/null"))
    with Engine(cluster, known_hosts, None, timeout=20) as engine:
        with pytest.raises(PhaseError) as caught:
            engine.run("any", lambda _: run("true"), cluster.machines)
        (failure,) = caught.value.failures
        assert failure.step == "connect"
        with pytest.raises(UnreachableError) as direct:
            engine.shell(machine, "true")
        assert direct.value.message == failure.cause
        assert direct.value.hint == failure.hint
    return direct.value


def test_an_unknown_host_key_is_refused_and_not_learned(ground, tmp_path):
    hosts = tmp_path / "known_hosts"
    hosts.write_text("")

    error = connect_failure(ground.machine(0), hosts)

    assert "host key of m1" in error.message
    assert "is not known" in error.message
    assert "ssh_host_key" in error.hint
    assert hosts.read_text() == ""


def test_a_changed_host_key_is_refused_with_the_way_to_remove_the_old_one(ground, tmp_path):
    hosts = tmp_path / "known_hosts"
    port = ground.servers[0].port
    hosts.write_text(f"[127.0.0.1]:{port} {ground.servers[1].host_key}\n")

    error = connect_failure(ground.machine(0), hosts)

    assert "another host key" in error.message
    shown = subprocess.run(
        ["ssh-keygen", "-lf", ground.servers[0].directory / "host.pub"],
        capture_output=True, text=True, check=True,
    ).stdout.split()[1]  # fmt: skip
    assert shown in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{port}'" in error.hint


def test_a_revoked_host_key_is_refused(ground, tmp_path):
    hosts = tmp_path / "known_hosts"
    key, port = ground.servers[0].host_key, ground.servers[0].port
    hosts.write_text(f"[127.0.0.1]:{port} {key}\n@revoked * {key}\n")

    error = connect_failure(ground.machine(0), hosts)

    assert "revoked" in error.message
    assert not error.off


def test_a_pattern_of_known_hosts_is_enough(ground, tmp_path):
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"[127.0.0.*]:* {ground.servers[0].host_key}\n")
    with Engine(ground.cluster(ground.machine(0)), hosts, None, timeout=20) as engine:
        assert engine.shell(ground.machine(0), "echo in")[1] == "in\n"


def test_too_many_keys_in_the_agent_are_a_refusal_and_the_machine_is_not_off(
    ground, tmp_path, monkeypatch
):
    agent = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", agent], stdout=subprocess.DEVNULL)
    try:
        while not agent.exists():
            time.sleep(0.02)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        monkeypatch.setenv("HOME", str(tmp_path))
        for number in range(9):
            key = ground.keygen(tmp_path / f"key{number}")
            subprocess.run(["ssh-add", "-q", key], check=True)
        error = connect_failure(ground.machine(0, key=None), ground.known_hosts)
    finally:
        process.terminate()
        process.wait()

    assert "too many keys" in error.message
    assert "ssh_key" in error.hint
    assert not error.off


def test_a_server_of_which_only_the_rsa_key_is_known_is_asked_for_it(ground, tmp_path):
    server, rsa = ground.servers[2], tmp_path / "rsa"
    subprocess.run(["ssh-keygen", "-qt", "rsa", "-N", "", "-f", rsa], check=True)
    settings = server.directory / "sshd_config"
    before = settings.read_text()
    hosts = tmp_path / "known_hosts"
    hosts.write_text(f"[127.0.0.1]:{server.port} {(tmp_path / 'rsa.pub').read_text()}")
    server.stop()
    settings.write_text(f"{before}\nHostKey {rsa}\n")
    server.start()
    try:
        with Engine(ground.cluster(ground.machine(2)), hosts, None, timeout=20) as engine:
            assert engine.shell(ground.machine(2), "echo in")[1] == "in\n"
    finally:
        server.stop()
        settings.write_text(before)
        server.start()


def test_a_refused_key_names_user_and_key(ground, tmp_path):
    stranger = ground.machine(0, key=ground.keygen(tmp_path / "stranger"))

    error = connect_failure(stranger, ground.known_hosts)

    assert f"refused {stranger.ssh.user} with the key {tmp_path}/stranger" in error.message


def test_a_missing_key_file_is_named(ground, tmp_path):
    error = connect_failure(ground.machine(0, key=tmp_path / "none"), ground.known_hosts)

    assert f"{tmp_path}/none" in error.message
    assert "ssh_key" in error.hint


def test_an_encrypted_key_is_not_asked_for_its_password(ground, tmp_path):
    key = ground.keygen(tmp_path / "locked", "secret")

    error = connect_failure(ground.machine(0, key=key), ground.known_hosts)

    assert "ssh_key_password" in error.hint


def test_a_closed_port_is_refused(ground):
    error = connect_failure(ground.machine(0, port=1), ground.known_hosts)

    assert "127.0.0.1:1" in error.message
    assert "connection refused" in error.message


def test_a_name_that_does_not_resolve_is_reported(ground):
    error = connect_failure(ground.machine(0, hostname="no-such-host.invalid"), ground.known_hosts)

    assert "no-such-host.invalid of m1 does not resolve" in error.message


def test_a_port_with_another_protocol_is_reported(ground, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 200)
                peer.close()

        threading.Thread(target=answer, daemon=True).start()
        error = connect_failure(ground.machine(0, port=server.getsockname()[1]), ground.known_hosts)

    assert "does not answer as SSH servers do" in error.message


def test_a_silent_port_is_given_up_after_the_timeout(ground, monkeypatch):
    monkeypatch.setattr("provision.apply.ssh.CONNECT_TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        error = connect_failure(ground.machine(0, port=server.getsockname()[1]), ground.known_hosts)

    assert time.monotonic() - began < 10
    assert "does not answer as SSH servers do" in error.message
    assert "frozen" in error.hint


def test_a_bastion_whose_key_is_unknown_is_refused_without_asking(ground, tmp_path, monkeypatch):
    config = tmp_path / "config"
    empty = tmp_path / "bastion_hosts"
    empty.write_text("")
    config.write_text(
        f"Host bastion\n  HostName 127.0.0.1\n  Port {ground.servers[1].port}\n"
        f"  IdentityFile {ground.key}\n  UserKnownHostsFile {empty}\n"
        f"Host 127.0.0.1\n  ProxyJump bastion\n"
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))

    error = connect_failure(ground.machine(0, config_file=config), ground.known_hosts)

    assert "No host key" in error.message or "is not known" in error.message


def test_ctrl_c_ends_everything_within_five_seconds(ground, tmp_path):
    script = tmp_path / "run.py"
    machines = [m.model_dump_json() for m in ground.cluster().machines]
    script.write_text(
        textwrap.dedent(f"""
        from gevent import monkey; monkey.patch_all()
        import sys
        from pathlib import Path
        from pyinfra.api.command import StringCommand
        from pyinfra.api.operation import operation
        from pyinfra.context import ctx_state
        from provision.model.cluster import Cluster, Machine
        from provision.apply.engine import Engine

        @operation()
        def slow():
            yield StringCommand("echo $$ > {tmp_path}/started-$$; sleep 60; touch {tmp_path}/late")

        machines = tuple(Machine.model_validate_json(text) for text in {machines!r})
        cluster = Cluster(name="test", machines=machines, inventory=Path("/dev/null"))
        try:
            with Engine(cluster, Path({str(ground.known_hosts)!r}), None, timeout=100) as engine:
                engine.run("slow", lambda _: slow(), machines)
        except KeyboardInterrupt:
            assert not ctx_state.isset()
            sys.exit(130)
        """)
    )
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 20
    while len(list(tmp_path.glob("started-*"))) < 3:
        assert time.monotonic() < deadline, "never started"
        time.sleep(0.05)

    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)

    assert time.monotonic() - began < 5
    assert process.returncode == 130, stderr
    for started in tmp_path.glob("started-*"):
        psutil.Process(int(started.read_text())).kill()


@contextmanager
def listings():
    """Run `ps` for all processes repeatedly; collect its outputs."""
    seen: list[str] = []
    stop = threading.Event()

    def sample():
        while not stop.is_set():
            seen.append(subprocess.check_output(["ps", "axww", "-o", "args"], text=True))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield seen
    finally:
        stop.set()
        sampler.join()


def test_secrets_on_stdin_are_in_no_log_and_no_argument_list(engine, ground, tmp_path):
    secret = "correct-horse-battery-staple"
    pem = f"-----BEGIN EC PRIVATE KEY-----\n{secret}\n-----END EC PRIVATE KEY-----"
    with listings() as seen:
        engine.run(
            "secret", lambda _: run(f"cat > {tmp_path}/key; sleep 1", pem, name="key"), on(engine)
        )
        engine.shell(on(engine)[0], "cat >/dev/null; sleep 0.5", secret.encode())
        engine.shell(on(engine)[0], f"cat {tmp_path}/key")
        engine.fetch(lambda _: f"grep horse {tmp_path}/key", on(engine), secret=True)

    assert secret in (tmp_path / "key").read_text()
    assert any("sleep 1" in listing for listing in seen)
    assert not any(secret in listing for listing in seen)
    written = engine.log.path.read_text()
    assert f"cat > {tmp_path}/key" in written
    assert f"{len(pem) + 1} bytes of stdin" in written
    assert secret not in written
    assert secret not in "".join(s.log for s in ground.servers)


def test_a_proxys_password_is_in_no_log_and_no_argument_list(ground, log):
    url = "http://me:hunter2%21@proxy.example:3128"
    cluster = ground.cluster().model_copy(update={"proxy": HttpProxy(https=url)})
    program = f"export https_proxy={url}; echo $https_proxy; echo 'me:hunter2!' >&2; sleep 1"
    with Engine(cluster, ground.known_hosts, log, timeout=60) as engine, listings() as seen:
        results = engine.run("artifacts", lambda _: deliver.take(program=program), on(engine)[:1])

    assert results["m1"].operations[0].output == url
    assert any("sleep 1" in listing for listing in seen)
    assert not any("hunter2" in listing for listing in seen)
    written = log.path.read_text()
    assert "http://me:*****@proxy.example:3128" in written
    assert "hunter2" not in written


def test_what_takes_artifacts_ends_by_itself_when_the_operators_time_is_over(engine, monkeypatch):
    limited = deliver._LIMITED.replace(str(deliver.TIMEOUT), "1")
    monkeypatch.setattr(deliver, "_LIMITED", limited)
    program = "trap 'echo cleaned >&2' EXIT; sleep 50"

    began = time.monotonic()
    with pytest.raises(PhaseError, match="cleaned"):
        engine.run("artifacts", lambda _: deliver.take(program=program), on(engine)[:1])

    assert time.monotonic() - began < 10


def test_the_log_has_every_command_and_output_and_is_the_owners_only(engine):
    engine.run("log", lambda _: run("echo out; echo err >&2"), on(engine)[:1])

    text = engine.log.path.read_text()

    assert re.search(r"m1 \[1\] \$ sh -c 'echo out; echo err >&2'", text)
    assert re.search(r"m1 \[1\] \| out\n", text)
    assert re.search(r"m1 \[1\] ! err\n", text)
    assert re.search(r"m1 \[1\] = exit 0, 0\.\d+ s", text)
    assert engine.log.path.stat().st_mode & 0o777 == 0o600
    assert engine.log.path.parent.stat().st_mode & 0o777 == 0o700


def test_nothing_is_printed_on_the_terminal_when_a_phase_fails(engine, ground, capfd):
    with pytest.raises(PhaseError):
        engine.run("bad", lambda _: run("echo secret-ish >&2; false"), on(engine))

    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
