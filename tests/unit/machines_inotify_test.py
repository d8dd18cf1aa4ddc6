"""The kernel's limit that all labs share."""

import pytest

from provision.local.progress import Silent
from provision.machines.inotify import make_room, set_back


class Notes(Silent):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@pytest.fixture
def setting(tmp_path):
    file = tmp_path / "max_user_instances"
    file.write_text("128\n")
    return file


def test_the_limit_grows_with_the_machines_says_so_and_is_set_back(setting):
    notes = Notes()
    make_room(5, notes, setting)
    first = int(setting.read_text())
    make_room(60, notes, setting)
    assert 128 < first < int(setting.read_text())
    assert len(notes.lines) == 2
    set_back(128, setting)
    assert setting.read_text() == "128\n"


def test_a_limit_that_is_high_enough_is_left_alone(setting):
    notes = Notes()
    setting.write_text("8192\n")
    make_room(60, notes, setting)
    set_back(8192, setting)
    assert setting.read_text() == "8192\n"
    assert notes.lines == []
