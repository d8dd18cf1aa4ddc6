"""Progress of several phases at once: on a terminal, as plain lines, and as events."""

import io
import json

import pytest
from rich.console import Console

from provision.cli import progress as shown
from provision.cli.progress import LiveProgress, PlainProgress
from provision.local.events import Recorded
from provision.local.progress import Silent


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_one_phase_is_written_line_by_line(capsys):
    progress = PlainProgress()
    with progress.phase("etcd", "start members", ("m1", "m2")) as phase:
        phase.update("m1", "start etcd, 1 s")
        phase.update("m1", "start etcd, 2 s")
        phase.done("m1", "changed")
    first, *rest, last = lines(capsys)
    assert first == "etcd: start members (m1, m2)"
    assert rest == ["  m1: start etcd, 1 s", "  m1: changed"]
    assert last.startswith("etcd: done in ")


def test_lines_of_phases_that_run_at_once_name_their_phase(capsys):
    progress = PlainProgress()
    with (
        progress.phase("etcd", "start members", ("m1",)) as etcd,
        progress.phase("artifacts", "deliver", ("m1", "w1")) as artifacts,
    ):
        etcd.update("m1", "start")
        artifacts.update("m1", "send")
    assert lines(capsys)[2:4] == ["  etcd, m1: start", "  artifacts, m1: send"]


def test_a_subject_that_failed_makes_its_phase_fail_and_no_other(capsys):
    progress = PlainProgress()
    with (
        progress.phase("etcd", "start members", ("m1",)) as etcd,
        progress.phase("artifacts", "deliver", ("w1",)),
    ):
        etcd.done("m1", "no disk", failed=True)
    *_, artifacts, etcd = lines(capsys)
    assert artifacts.startswith("artifacts: done in")
    assert etcd.startswith("etcd: failed after")


def test_a_report_without_a_phase_goes_to_the_latest_phase_of_its_subject(capsys):
    progress = PlainProgress()
    with (
        progress.phase("etcd", "start members", ("m1",)),
        progress.phase("artifacts", "deliver", ("w1",)),
    ):
        progress.done("m1", "no disk", failed=True)
        progress.done("other", "sent")
    assert "  etcd, m1: failed no disk" in (said := lines(capsys))
    assert "  artifacts, other: sent" in said


def test_a_terminal_shows_all_phases_that_run_and_a_line_of_each_that_ended(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr(shown, "err", console)
    progress = LiveProgress()
    with progress.phase("etcd", "start members", ("m1",)) as etcd:
        with progress.phase("artifacts", "deliver", ("m1", "w1")) as artifacts:
            etcd.update("m1", "starting")
            artifacts.done("w1", "sent")
            with console.capture() as drawn:
                console.print(progress._draw())
        etcd.done("m1", "no disk", failed=True)
    for text in ("start members", "deliver", "starting", "sent", "w1"):
        assert text in drawn.get()
    written = console.file.getvalue()
    assert "✓" in written
    assert "failed: m1" in written


def test_events_tell_when_phases_begin_end_and_fail():
    file = io.StringIO()
    progress = Recorded(Silent(), file)
    began = []

    def up():
        with progress.phase("up", "all", ("m1",)) as phase:
            with phase.phase("etcd", "start members", ("m1", "m2")):
                began.extend(json.loads(line) for line in file.getvalue().splitlines())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        up()
    assert [(e["event"], e["phase"], e["subjects"]) for e in began] == [
        ("phase-began", "up", ["m1"]),
        ("phase-began", "etcd", ["m1", "m2"]),
    ]
    events = [json.loads(line) for line in file.getvalue().splitlines()]
    assert [(e["event"], e["phase"]) for e in events[2:]] == [
        ("phase-ended", "etcd"),
        ("phase-failed", "up"),
    ]
    assert all(isinstance(e["time"], float) for e in events)
