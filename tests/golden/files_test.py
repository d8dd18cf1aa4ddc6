"""Every file of every machine, as it was when somebody last looked at it and found it good.

`pytest tests/golden --update-golden` writes `files/` anew; look at the diff before committing it.
There are the plain machines of the lab, one ordinary machine (m3) and one of the RHEL family (w2).
Keys and certificates, new in every run, stand there by name.
"""

import re
import shutil
from pathlib import Path

import pytest

from provision.desired.catalog import desired
from provision.desired.model import ComponentState
from provision.pki import age
from tests.world import DEFAULT, LAB, PLAIN, RHEL, trust

GOLDEN = Path(__file__).with_name("files")
FACTS = {"m1": LAB, "m2": LAB, "m3": PLAIN, "w1": LAB, "w2": RHEL}
PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----[^-]+-----END \1-----")
UPDATE = "if this is meant: pytest tests/golden --update-golden, and read the diff"


def masked(content: bytes) -> str:
    text = content.decode()
    text = text.replace(trust().encryption_key, "<the encryption key>")
    text = text.replace(trust().network_key, "<the network key>")
    text = text.replace(trust().network_key[:8], "<the network key's first 8>")
    text = text.replace(age.recipient(age.identity(trust())), "<the key of its snapshots>")
    text = text.replace(trust().digest, "<the trust's digest>")
    return PEM.sub(r"<\1>", text)


def summary(state: ComponentState) -> str:
    """All that is not content, a line for each thing."""
    lines = [f"# {state.name}"]
    lines += [f"package {name}" for name in state.packages]
    lines += [f"user {name}" for name in state.users]
    lines += [f"directory {d.mode:04o} {d.owner}:{d.group} {d.path}" for d in state.directories]
    lines += [
        f"file {f.mode:04o} {f.owner}:{f.group} {f.path}{' (secret)' if f.secret else ''}"
        for f in state.files
    ]
    lines += [f"binary {b.path} = {b.artifact}" for b in state.binaries]
    for leaf in state.leaves:
        subject = ", ".join((leaf.common_name, *leaf.organizations))
        names = ", ".join((*leaf.dns, *leaf.addresses))
        usages = "+".join(sorted(leaf.usages))
        lines.append(
            f"leaf {leaf.owner}:{leaf.group} {leaf.cert_path} {leaf.key_path}: "
            f"{subject} ({usages}, {leaf.authority}) {names}".rstrip()
        )
    lines += [f"sysctl {key} = {value}" for key, value in state.sysctls]
    lines += [f"module {name}" for name in state.modules]
    for unit in state.units:
        how = "reload" if unit.reload else "restart"
        lines.append(f"unit {unit.name} ({how if unit.running else 'enabled only'})")
        lines += [f"  reads {path}" for path in unit.reads]
    lines += [f"health ({state.health_timeout} s) {state.health}"] if state.health else []
    lines += [f"leftover {path}" for path in state.leftovers]
    lines += [f"cleanup {state.cleanup}"] if state.cleanup else []
    return "\n".join(lines)


def rendered(name: str) -> dict[str, str]:
    """Path below `files/NAME` -> text."""
    states = desired(DEFAULT, DEFAULT.machine(name), trust(), FACTS[name]).values()
    texts = {f.path.removeprefix("/"): masked(f.content) for s in states for f in s.files}
    return {"summary.txt": "\n\n".join(summary(s) for s in states) + "\n"} | texts


@pytest.mark.parametrize("name", FACTS)
def test_a_machines_files_are_the_golden_ones(name, request):
    texts = rendered(name)
    if request.config.getoption("--update-golden"):
        shutil.rmtree(GOLDEN / name, ignore_errors=True)
        for path, text in texts.items():
            target = GOLDEN / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    golden = {
        str(path.relative_to(GOLDEN / name)): path.read_text()
        for path in (GOLDEN / name).rglob("*")
        if path.is_file()
    }

    assert sorted(texts) == sorted(golden), UPDATE
    for path, text in texts.items():
        assert text == golden[path], f"{name}: /{path}: {UPDATE}"


def test_the_golden_files_hold_no_key():
    texts = [path.read_text() for path in GOLDEN.rglob("*") if path.is_file()]

    assert texts
    assert not any("-----BEGIN" in text for text in texts)
