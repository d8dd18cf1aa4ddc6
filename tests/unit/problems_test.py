"""Every exception becomes a message, a traceback in the log and an exit code; none reaches the user."""

import errno
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

import provision
from provision.artifacts import bundle
from provision.cli import problems
from provision.cli.app import main
from provision.local import changes, disk, private_file, runlog
from provision.model.errors import ClusterctlError, UnreachableError
from tests.unit.cli_test import COMMANDS, REST, WITH_INVENTORY

INVENTORY = """\
cluster = {"name": "tiny", "api": {"vip": "192.0.2.9"}}
masters = [("m1", {"ssh_hostname": "127.0.0.1", "ssh_port": 1, "address": "192.0.2.1"})]
"""
# Package -> a function in it, or the place from which it is called, that `plan` comes through.
LAYERS = {
    "cli": "provision.cli.cluster_commands.progress",
    "commands": "provision.commands.converge.check",
    "inventory": "provision.inventory.checks.hosts",
    "machines": "provision.apply.session.locate",
    "local": "provision.local.cache.Cache.directory",
    "apply": "provision.apply.ssh.Link.client",  # in a greenlet
    "observe": "provision.observe.parse.unreachable",
    "plan": "provision.commands.converge.preflight",
    "model": "provision.model.look.Look.fingerprint",
    "pki": "provision.apply.session.Trust.create",
    "desired": "provision.commands.converge.artifacts_of",
    "artifacts": "provision.commands.converge.artifacts.prepare",
}
# These are reached only after the machines have passed the checks.
AFTER = {"model", "pki", "desired", "artifacts"}


class OddError(Exception):
    """An error of a library, which clusterctl does not know."""


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(runlog, "_latest", [])
    changes.forget()
    return tmp_path / "state"


@pytest.fixture
def inventory(tmp_path):
    path = tmp_path / "tiny.py"
    path.write_text(INVENTORY)
    return path


def raising(error):
    def raise_it(*_, **__):
        raise error

    return raise_it


def logged(state):
    return "".join(path.read_text() for path in state.rglob("*.log"))


@pytest.mark.parametrize("names", WITH_INVENTORY, ids=" ".join)
def test_an_unknown_error_in_any_command_is_a_message_with_the_log(
    names, inventory, own_state, monkeypatch, capsys
):
    monkeypatch.setattr("provision.inventory.read", raising(OddError("Include loop detected")))
    monkeypatch.setattr("provision.apply.session.inventory.read", raising(OddError("Include loop")))

    code = main([*names, str(inventory), *REST.get(names, [])])

    text = capsys.readouterr().err
    if "OddError" not in text:  # a command that refuses its arguments first
        assert code in {5, 64}, text
        return
    assert code == 1
    assert "Traceback" not in text
    assert "traceback: " in text
    assert "Traceback (most recent call last)" in logged(own_state)


LIBRARY_ERRORS = [
    OddError("Include loop detected"),
    KeyError("canonicaldomains"),
    ValueError("invalid literal for int() with base 10: '30s'"),
    UnicodeDecodeError("utf-8", b"\xe4", 0, 1, "invalid continuation byte"),
    RecursionError("maximum recursion depth exceeded"),
    AssertionError(),
    MemoryError(),
    ConnectionResetError(104, "Connection reset by peer"),
    OSError(errno.EROFS, "Read-only file system", "/home/me/x"),
    ExceptionGroup("several", [OddError("one"), OddError("two")]),
]


@pytest.mark.parametrize("error", LIBRARY_ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("layer", LAYERS)
def test_an_error_of_any_layer_is_a_message(
    layer, error, inventory, own_state, monkeypatch, capsys
):
    if layer in AFTER:
        monkeypatch.setattr("provision.commands.converge.check", lambda *_, **__: ())
    if layer != "apply":
        unreached = raising(UnreachableError("m1 is off"))
        monkeypatch.setattr("provision.apply.ssh.Link.client", unreached)
    monkeypatch.setattr(LAYERS[layer], raising(error))

    assert main(["plan", str(inventory)]) == 1

    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert type(error).__name__ in logged(own_state)


def test_every_package_has_a_layer_that_is_tried():
    # The plug-in runs in pyinfra, the drill is a command, and AWS has its own tests.
    assert set(packages()) == LAYERS.keys() | {"aws", "drill", "pyinfra_plugin"}


def packages():
    return [name for _, name, is_package in pkgutil.iter_modules(provision.__path__) if is_package]


def every_error():
    parts = [ClusterctlError]
    while parts:
        part = parts.pop()
        yield part
        parts += part.__subclasses__()


def test_all_errors_of_clusterctl_have_codes_of_the_page():
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text()
    table = page.partition("## Exit codes")[2]
    columns = re.findall(r"^\| ([0-9, ]+) \|", table, re.MULTILINE)
    codes = {error.exit_code for error in every_error()} | {0, 2, 64, 130, 129, 143, 141}

    assert {int(code) for column in columns for code in column.split(",")} == codes


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (errno.ENOSPC, "df -h"),
        (errno.EDQUOT, "df -h"),
        (errno.EROFS, "access"),
        (errno.EACCES, "access"),
        (errno.EPERM, "access"),
    ],
)
def test_a_directory_that_cannot_be_used_is_named_with_another_way(number, word, own_state):
    error = OSError(number, os.strerror(number), str(own_state / "clusterctl" / "logs" / "x.log"))

    message, hint = disk.explain(error)

    assert "x.log" in message
    assert os.strerror(number) in message
    assert word in hint
    assert "export XDG_STATE_HOME=DIRECTORY" in hint


@pytest.mark.parametrize("variable", ["XDG_STATE_HOME", "XDG_CACHE_HOME"])
def test_the_variable_of_the_hint_moves_the_directory(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))

    assert disk._own()[variable].is_relative_to(tmp_path / "elsewhere")


def test_an_error_of_a_socket_is_not_an_error_of_a_file():
    assert disk.explain(ConnectionRefusedError(111, "Connection refused")) is None


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_is_told_and_the_run_goes_on(tmp_path, capsys):
    log = runlog.RunLog(tmp_path / "x.log")
    log._file = Path("/dev/full").open("a", buffering=1)  # noqa: SIM115
    runlog._latest[:] = [log]

    log.note("m1", "text")
    assert log.lost.errno == errno.ENOSPC
    assert problems.report(OddError("x"), ["up", "x.py"]) == 1

    text = capsys.readouterr().err
    assert "The log cannot be written (No space left on device)" in text
    assert "Traceback" not in text


def test_a_state_directory_that_cannot_be_made_is_told(tmp_path, monkeypatch, capsys, inventory):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("provision.inventory.read", raising(OddError("x")))

    assert main(["plan", str(inventory)]) == 1

    assert "The log cannot be written (" in capsys.readouterr().err


@pytest.fixture
def full(tmp_path, monkeypatch):
    """A disk that is full: `write` fails, and does not say which file it writes."""
    real = os.fdopen

    def fdopen(descriptor, mode="r", *rest, **options):
        if mode != "wb":
            return real(descriptor, mode, *rest, **options)
        os.close(descriptor)
        return Path("/dev/full").open("wb", buffering=0)

    monkeypatch.setattr(os, "fdopen", fdopen)


def test_a_private_file_on_a_full_disk_is_named(tmp_path, full, capsys):
    with pytest.raises(OSError, match="No space") as raised:
        private_file.write(tmp_path / "ca.key", b"secret")

    assert problems.report(raised.value, []) == 1
    assert "ca.key cannot be written: No space left on device" in capsys.readouterr().err


def test_a_disk_that_fills_while_a_bundle_is_unpacked_is_told(tmp_path, monkeypatch, capsys):
    item = bundle._Item(name="etcd", version="1", arch="amd64", sha256="0" * 64, size=1)
    tar = SimpleNamespace(next=lambda: SimpleNamespace(name="amd64/etcd"), extractfile=lambda _: 1)
    monkeypatch.setattr(
        bundle.shutil, "copyfileobj", raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    )
    with pytest.raises(OSError, match="No space") as raised:
        bundle._unpack_one(
            tar, item, tmp_path / "cache" / "clusterctl" / "etcd", tmp_path / "b.tar.zst"
        )

    problems.report(raised.value, ["up", "x.py"])
    text = capsys.readouterr().err
    assert "etcd cannot be written: No space left on device" in text
    assert "XDG_CACHE_HOME" in text


# Ctrl-C


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), typer.Abort()], ids=repr)
def test_ctrl_c_before_a_change_says_that_no_machine_changed(stop, inventory, monkeypatch, capsys):
    monkeypatch.setattr("provision.inventory.read", raising(stop))

    assert main(["check", str(inventory)]) == 130
    text = capsys.readouterr().err
    assert "has changed no machine" in text
    assert f"clusterctl check {inventory}" in text


@pytest.mark.parametrize(("stop", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143)])
def test_ctrl_c_during_a_change_names_what_may_have_changed(stop, code, capsys):
    changes.begin("the machines of ha")

    assert problems.report(stop, ["node", "replace", "my ha.py", "m2"]) == code
    text = capsys.readouterr().err
    assert "may have changed the machines of ha" in text
    assert "no file is half written" in text
    assert "The same command continues: clusterctl node replace 'my ha.py' m2" in text


@pytest.mark.parametrize("names", COMMANDS, ids=" ".join)
def test_ctrl_c_in_any_command_is_130_with_the_state(names, tmp_path, monkeypatch, capsys):
    """Ctrl-C where the command parses what follows its name: typer must not keep it to itself."""
    monkeypatch.setattr("provision.cli.app._commands", Interrupting)

    assert main([*names]) == 130
    assert f"clusterctl {' '.join(names)}" in capsys.readouterr().err


class Interrupting:
    def make_context(self, name, arguments):
        raise KeyboardInterrupt


# The terminal


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_output_is_shown_in_any_encoding(encoding):
    program = (
        "from provision.cli import streams; streams.prepare()\n"
        "from provision.cli.console import err, out\n"
        "from provision.cli.progress import LiveProgress\n"
        "out.print('\\u2713 \\u2717 caf\\xe9 \\u4e2d \\udcff \\u2192')\n"
        "print('\\u2717 \\u2026')\n"
        "with LiveProgress().phase('etcd', 'start', ('m1',)) as phase: phase.done('m1')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONIOENCODING": f"{encoding}:strict"},
        capture_output=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    text = done.stdout.decode(encoding)
    assert ("✓ ✗" if encoding == "utf-8" else "+ x") in text
    assert "-> " in text or "→" in text or "->" in text


def clusterctl(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "provision", *arguments], stderr=subprocess.PIPE, **options
    )


@pytest.mark.parametrize("arguments", [["version"], ["init"], ["version", "-o", "json"]])
def test_a_reader_that_goes_away_ends_the_command_quietly(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with clusterctl(*arguments, stdout=writer) as process:
        os.close(writer)
        said = process.stderr.read()

    assert (process.returncode, said) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_on_a_full_disk_is_an_error(own_state):
    with Path("/dev/full").open("w") as full, clusterctl("version", stdout=full) as process:
        said = process.stderr.read().decode()

    assert process.returncode == 1
    assert "No space left on device" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(closed):
    command = f'"{sys.executable}" -m provision init {closed}'

    done = subprocess.run(["sh", "-c", command], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")


def test_an_error_in_a_greenlet_or_thread_is_in_the_log_and_not_on_the_terminal(own_state):
    program = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import gevent, threading\n"
        "from provision.cli import problems\n"
        "problems.quiet_greenlets()\n"
        "from provision.local.runlog import RunLog\n"
        "RunLog.create('ha')\n"
        "def fail(): raise KeyError('in a greenlet')\n"
        "gevent.joinall([gevent.spawn(fail)])\n"
        "thread = threading.Thread(target=fail); thread.start(); thread.join()\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    assert (done.returncode, done.stderr) == (0, b"")
    assert logged(own_state).count("KeyError: 'in a greenlet'") >= 2


def test_glyphs_have_replacements_that_say_the_same():
    assert "✓ ✗ → …".encode("ascii", "clusterctl").decode() == "+ x -> ..."
