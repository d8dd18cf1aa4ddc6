"""The CIS checks: what our machines are given meets them, and what does not is found and named."""

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from provision.commands.audit.checks import checks, load
from provision.commands.audit.document import BEGIN, markdown
from provision.commands.audit.judge import judge, value
from provision.commands.audit.model import (
    AtLeast,
    Check,
    Files,
    FileSeen,
    Has,
    HasNot,
    Is,
    IsNotSet,
    NotZero,
    Only,
    Place,
    Seen,
    Setting,
)
from provision.commands.audit.probe import parse, program
from provision.desired.catalog import desired
from provision.model import paths
from provision.model.cluster import Role
from provision.model.settings.network import Networks
from tests.world import DEFAULT, LAB, cluster, machine, master, trust, worker

NOTHING = Seen({}, {}, {}, {})
BY_ID = {check.id: check for check in checks()}


def answer(of, one):
    """What a machine would print if it had just what is desired of it."""
    states = desired(of, one, trust(), LAB)
    files = {f.path: f for s in states.values() for f in s.files}
    made = {d.path: d for s in states.values() for d in s.directories}
    lines, arguments = [], {}
    for name in states:
        unit = files.get(f"{paths.UNITS}/{name}.service")
        if unit is None:
            continue
        text = unit.content.decode().replace("\\\n", " ")
        (start,) = [li for li in text.splitlines() if li.startswith("ExecStart=")]
        arguments[name] = shlex.split(start)[1:]
        lines += [f"@@ arguments {name}", *arguments[name]]
    if one.is_node:
        for name in {"kubelet", "kube-proxy"} & set(states):
            (path,) = [a.split("=")[1] for a in arguments[name] if a.startswith("--config=")]
            lines += [f"@@ config {name}", files[path].content.decode()]
    if one.is_master:
        lines += ["@@ arguments encryption", "--provider=secretbox"]
    leaves = [leaf for s in states.values() for leaf in s.leaves]
    there = {path: (f.mode, f"{f.owner}:{f.group}") for path, f in {**made, **files}.items()}
    there |= {leaf.cert_path: (0o644, f"{leaf.owner}:{leaf.group}") for leaf in leaves}
    there |= {leaf.key_path: (0o600, f"{leaf.owner}:{leaf.group}") for leaf in leaves}
    there["/etc/kubernetes/kubelet.conf"] = (0o600, "root:root")  # the kubelet's own work
    given = {
        "{etcd --data-dir}": "/var/lib/etcd",
        "{kube-scheduler --kubeconfig}": "/etc/kubernetes/scheduler.conf",
        "{kube-controller-manager --kubeconfig}": "/etc/kubernetes/controller-manager.conf",
        "{kube-proxy kubeconfig}": "/etc/kubernetes/kubelet.conf",
        "{kubelet --kubeconfig}": "/etc/kubernetes/kubelet.conf",
        "{kubelet --config}": "/var/lib/kubelet/config.yaml",
        "{kubelet clientCAFile}": "/etc/kubernetes/pki/ca.crt",
    }
    for pattern in {p for c in checks() for t in c.tests if isinstance(t, Files) for p in t.paths}:
        path = given.get(pattern, pattern)
        directory, _, name = path.partition("/**")
        found = [
            other
            for other in there
            if other == path
            or (name == "/" and (other == directory or other.startswith(f"{directory}/")))
            or (name.startswith("/*") and other.startswith(directory) and other.endswith(name[2:]))
            or (path.endswith("/**") and other.startswith(f"{directory}/") and other not in made)
        ]
        lines.append(f"@@ files {pattern}")
        lines += [f"{there[p][0]:o} {there[p][1]} {p}" for p in found]
    return "\n".join([*lines, "@@ end", ""])


def audited(of):
    return judge(of, {m.name: parse(answer(of, m)) for m in of.machines}, {})


def failing(report):
    return {v.check.id: v.problems for v in report.verdicts if v.problems}


def test_there_are_the_benchmarks_65_scored_checks_and_27_others():
    assert sum(check.scored for check in checks()) == 65
    assert sum(not check.scored for check in checks()) == 27
    assert len(BY_ID) == 92


@pytest.mark.parametrize(
    "of",
    [
        DEFAULT,
        cluster(master("m1"), machine("e1", Role.ETCD), worker("w1")),
        cluster(networks=Networks(proxy_mode="none")),
    ],
    ids=["stacked", "separate etcd", "no kube-proxy"],
)
def test_every_check_holds_for_what_we_put_on_machines(of):
    assert failing(audited(of)) == {}


def test_every_check_is_made_somewhere_and_only_where_it_belongs():
    report = audited(DEFAULT)
    made = {v.check.id: v.machines for v in report.verdicts}

    assert all(made.values())
    assert made["1.2.1"] == made["2.1"] == ("m1", "m2", "m3")
    assert made["4.2.1"] == ("m1", "m2", "m3", "w1", "w2")


def test_no_check_holds_on_a_machine_on_which_nothing_runs():
    found = failing(judge(DEFAULT, {m.name: NOTHING for m in DEFAULT.machines}, {}))

    # A pod network that has no files has none that are open.
    assert set(BY_ID) - set(found) == {"1.1.9", "1.1.10"}


def test_a_flag_loosened_in_the_inventory_is_named_with_the_line_to_take_out():
    of = cluster(extra_args={"kube-apiserver": {"profiling": "true"}})
    found = failing(audited(of))

    assert list(found) == ["1.2.15"]
    assert [p.machine for p in found["1.2.15"]] == ["m1", "m2", "m3"]
    assert "--profiling is true, and must be false" in found["1.2.15"][0].what
    assert "'profiling' out of extra_args in /inventories/demo.py" in found["1.2.15"][0].todo


def test_a_file_that_others_may_read_is_named_with_the_command_to_type():
    seen = {m.name: parse(answer(DEFAULT, m)) for m in DEFAULT.machines}
    pattern = "{etcd --data-dir}"
    files = {**seen["m2"].files, pattern: (FileSeen("/var/lib/etcd", 0o755, "root:root"),)}
    seen["m2"] = replace(seen["m2"], files=files)
    found = failing(judge(DEFAULT, seen, {}))

    assert list(found) == ["1.1.11", "1.1.12"]
    (mode,), (owner,) = found.values()
    assert mode.todo == "clusterctl ssh /inventories/demo.py m2 -- chmod 700 /var/lib/etcd"
    assert owner.todo.endswith("m2 -- chown etcd:etcd /var/lib/etcd")


def test_a_machine_that_does_not_answer_is_not_a_pass():
    report = judge(DEFAULT, {}, {"m1": "no answer"})

    assert not report.holds
    assert failing(report) == {}


@pytest.mark.parametrize(
    ("arguments", "environment", "config", "wanted"),
    [
        (("--flag=a", "--flag=b"), {}, {}, "b"),
        (("--flag", "a"), {}, {"field": "b"}, "a"),
        (("--flag", "--other"), {}, {}, "true"),
        (("--flagged=a",), {"ETCD_FLAG": "e"}, {}, "e"),
        ((), {}, {"field": "c"}, "c"),
        ((), {}, {}, "default"),
    ],
)
def test_the_flag_counts_before_the_variable_before_the_file_before_the_default(
    arguments, environment, config, wanted
):
    setting = Setting("etcd", "flag", Is(""), "field", "default")
    seen = Seen({"etcd": arguments}, {"etcd": environment}, {"etcd": config}, {})

    assert value(setting, seen) == wanted


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (Is("false"), "false", "true"),
        (IsNotSet(), None, ""),
        (Has("b"), "a,b", "a,bb"),
        (HasNot("b"), "a,bb", "a,b"),
        (Only(("a", "b")), "a", "a,c"),
        (Only(("a", "b")), "b,a", ""),
        (AtLeast(30), "30", "29"),
        (AtLeast(0), "0", "-1"),
        (AtLeast(1), "9", "many"),
        (NotZero(), "4h0m0s", "0s"),
    ],
)
def test_a_rule_holds_for_what_it_says(rule, good, bad):
    assert rule.holds(good)
    assert not rule.holds(bad)


def test_the_probe_finds_files_by_every_kind_of_pattern(tmp_path):
    (tmp_path / "pki" / "etcd").mkdir(parents=True)
    for name, mode in (("pki/a b.crt", 0o644), ("pki/etcd/b.crt", 0o640), ("pki/c.key", 0o600)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    patterns = (
        f"{tmp_path}/pki/c.key",
        f"{tmp_path}/pki/**",
        f"{tmp_path}/pki/**/",
        f"{tmp_path}/pki/**/*.crt",
        f"{tmp_path}/none/**",
        "{etcd --data-dir}",
    )
    check = Check("0", Place.NODES, "", (Files(patterns, mode=0o600),), "")
    ran = subprocess.run(["sh"], input=program([check]), capture_output=True, text=True, check=True)
    seen = parse(ran.stdout).files

    def names(pattern):
        return sorted(f.path.removeprefix(str(tmp_path)) for f in seen[pattern])

    assert names(patterns[0]) == ["/pki/c.key"]
    assert names(patterns[1]) == ["/pki/a b.crt", "/pki/c.key", "/pki/etcd/b.crt"]
    assert names(patterns[2]) == [
        "/pki",
        "/pki/a b.crt",
        "/pki/c.key",
        "/pki/etcd",
        "/pki/etcd/b.crt",
    ]
    assert names(patterns[3]) == ["/pki/a b.crt", "/pki/etcd/b.crt"]
    assert seen[patterns[4]] == seen[patterns[5]] == ()
    assert {f.path.split("/")[-1]: f.mode for f in seen[patterns[3]]} == {
        "a b.crt": 0o644,
        "b.crt": 0o640,
    }


def test_an_answer_that_is_not_whole_is_not_judged():
    with pytest.raises(ValueError, match="incomplete"):
        parse("@@ arguments etcd\n--name=m1\n")


def test_the_page_has_every_check_as_the_data_have_it():
    page = Path(__file__).parents[2] / "docs" / "security.md"

    assert page.read_text().partition(BEGIN)[2] == "\n" + markdown()
    assert all(f"| {check.id}{'' if check.scored else ' '}" in markdown() for check in checks())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("settings: [{process: etcd, must: be sat}]", "there is no rule 'be sat'"),
        ("settings: [{process: etcd, must: {be: true}}]", "there is no rule {'be': True}"),
        ("settings: [{process: etcd, must: be set, flag: x}]", "flag\n.*not permitted"),
        ("files: [{unit: etcd}]", "needs either unit or paths, and mode or owner"),
        ("files: [{unit: etcd, mode: 0600}]", "mode\n.*valid string"),
        ("scored: true", "tests nothing"),
    ],
)
def test_a_check_that_the_table_says_wrongly_is_refused(written, said):
    table = f"checks: [{{id: 1.1.1, place: masters, what: W, how: H, {written}}}]"
    with pytest.raises(ValueError, match=said):
        load(table)
