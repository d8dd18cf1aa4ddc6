"""Manifests compared with what the API has, also with what Kubernetes 1.37.1 answered."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from provision.plan.objects import differences, quantity

DATA = Path(__file__).parent / "data"
APPLIED = tuple(yaml.safe_load_all((DATA / "applied.yaml").read_text()))
LIVE = tuple(map(json.loads, (DATA / "applied_live.jsonl").read_text().splitlines()))


def named(thing):
    return thing["kind"], thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


ANSWERS = {named(thing): thing for thing in LIVE}
IDS = ["/".join(filter(None, named(thing))) for thing in APPLIED]


@pytest.mark.parametrize("wanted", APPLIED, ids=IDS)
def test_an_object_that_was_applied_does_not_differ(wanted):
    assert differences(wanted, ANSWERS[named(wanted)]) == ()


def leaves(value, path=()):
    """The paths of all values that are no map and no list, and are not empty."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*path, key))
    elif value not in ("", None):
        yield path


def changed(value, path, change):
    """A copy of it, with another value at the path, or with none."""
    new = copy.deepcopy(value)
    *above, last = path
    at = new
    for key in above:
        at = at[key]
    if change is None:
        del at[last]
    else:
        at[last] = change(at[last])
    return new


def another(value):
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else f"{value}x"


@pytest.mark.parametrize("wanted", APPLIED, ids=IDS)
def test_every_value_that_is_changed_or_removed_is_found(wanted):
    for path in leaves(wanted):
        for change in (another, None):
            live = changed(wanted, path, change)
            assert differences(wanted, live), (path, change)


# What the API may do to an object without changing its meaning.

KEYED = ("containers", "env", "volumes", "volumeMounts")
words = st.text("abcxyz-", min_size=1, max_size=6)
scalars = st.one_of(words, st.integers(0, 9000), st.booleans())
cpu = st.integers(1, 9000).map(lambda m: f"{m}m")
memory = st.integers(1, 4096).map(lambda m: f"{m}Mi")
atoms = st.lists(st.one_of(words, st.integers(0, 99)), max_size=3)
container = st.fixed_dictionaries(
    {"name": words, "image": words},
    optional={
        "args": atoms,
        "resources": st.fixed_dictionaries(
            {"limits": st.fixed_dictionaries({"cpu": cpu, "memory": memory})}
        ),
        "env": st.lists(
            st.fixed_dictionaries({"name": words, "value": words}),
            unique_by=lambda e: e["name"],
            max_size=3,
        ),
        "ports": st.lists(
            st.fixed_dictionaries(
                {"containerPort": st.integers(1, 99)},
                optional={"protocol": st.sampled_from(["TCP", "UDP"]), "name": words},
            ),
            unique_by=lambda p: (p["containerPort"], p.get("protocol", "TCP")),
            max_size=3,
        ),
        "tolerations": st.lists(
            st.fixed_dictionaries({"key": words}, optional={"effect": words}), max_size=3
        ),
    },
)
objects = st.fixed_dictionaries(
    {
        "kind": st.just("Thing"),
        "spec": st.fixed_dictionaries(
            {
                "containers": st.lists(
                    container, unique_by=lambda c: c["name"], min_size=1, max_size=3
                ),
                "selector": st.dictionaries(words, words, max_size=3),
            },
            optional={
                "empty": st.sampled_from([[], {}, "", None]),
                "data": st.dictionaries(words, scalars, max_size=4),
            },
        ),
    }
)


def rewritten(value, key, above, chance):
    """A quantity as the API may write it."""
    if above == "limits" and key == "cpu":
        return chance.choice([value, str(int(value.removesuffix("m")) / 1000)])
    if above == "limits" and key == "memory":
        mebi = int(value.removesuffix("Mi"))
        return chance.choice([value, f"{mebi * 1024}Ki", str(mebi * 1024**2)])
    return value


def defaulted(value, chance, key="", above=""):
    """The object as the API gives it back: reordered, with more fields and without empty ones."""
    if isinstance(value, dict):
        items = [
            (name, defaulted(inner, chance, name, key))
            for name, inner in value.items()
            if inner not in ([], {}, "", None)
        ]
        if key not in ("selector", "limits"):
            items.append(("zzDefault", chance.choice([1, "Always", {"a": []}])))
        if "containerPort" in value and "protocol" not in value:
            items.append(("protocol", "TCP"))
        chance.shuffle(items)
        return dict(items)
    if isinstance(value, list):
        inner = [defaulted(element, chance) for element in value]
        if key in KEYED or key == "ports":
            chance.shuffle(inner)
        if key == "env":  # another manager has added it
            inner.append({"name": "ZZ_OTHER", "value": "1"})
        return inner
    return rewritten(value, key, above, chance)


@given(objects, st.randoms(use_true_random=False))
def test_what_the_api_adds_and_rewrites_is_no_difference(wanted, chance):
    assert differences(wanted, defaulted(wanted, chance)) == ()


@given(objects, st.randoms(use_true_random=False), st.data())
def test_a_change_is_found_among_all_that_the_api_adds(wanted, chance, data):
    candidates = [p for p in leaves(wanted) if p[-1] not in ("cpu", "memory")]
    path = data.draw(st.sampled_from(candidates))

    assert differences(changed(wanted, path, another), defaulted(wanted, chance))


@pytest.mark.parametrize(
    ("wanted", "live", "paths"),
    [
        ({"data": {"Corefile": "a"}}, {"data": {"Corefile": "b"}}, ("data.Corefile",)),
        ({"data": {"Corefile": "a"}}, {}, ("data",)),
        ({"data": {"a": "1"}}, {"data": {"a": "1", "b": "2"}}, ()),
        (
            {"ports": [{"port": 53, "protocol": "UDP", "targetPort": 53}]},
            {
                "ports": [
                    {"port": 53, "protocol": "TCP", "targetPort": 53},
                    {"port": 53, "protocol": "UDP", "targetPort": 5353},
                ]
            },
            ("ports[53/UDP].targetPort",),
        ),
        (
            {"containers": [{"name": "a", "image": "x"}]},
            {"containers": [{"name": "b", "image": "x"}]},
            ("containers[a]",),
        ),
        ({"args": ["a"]}, {"args": ["a", "b"]}, ("args",)),
        ({"args": ["a", "b"]}, {"args": ["b", "a"]}, ("args[0]", "args[1]")),
        ({"args": []}, {"args": ["a"]}, ("args",)),
        # Pods that the Service would no longer find.
        ({"selector": {"a": "1"}}, {"selector": {"a": "1", "b": "2"}}, ("selector.b",)),
        (
            {"selector": {"matchLabels": {"a": "1"}}},
            {"selector": {"matchLabels": {"a": "1", "b": "2"}, "matchExpressions": []}},
            ("selector.matchLabels.b",),
        ),
        ({"validationActions": ["Warn"]}, {"validationActions": ["Audit", "Warn"]}, ()),
        ({"validationActions": ["Warn"]}, {"validationActions": ["Audit"]}, ("validationActions[Warn]",)),
        # A name of a port is no number of one.
        ({"targetPort": 53}, {"targetPort": "53"}, ("targetPort",)),
        ({"maxUnavailable": 1}, {"maxUnavailable": True}, ("maxUnavailable",)),
        ({"maxUnavailable": 0}, {}, ("maxUnavailable",)),
        ({"data": {"cpu": "100m"}}, {"data": {"cpu": "0.1"}}, ("data.cpu",)),
        ({"limits": {"cpu": "100m"}}, {"limits": {"cpu": "0.1"}}, ()),
        ({"limits": {"cpu": "100m"}}, {"limits": {"cpu": "0.2"}}, ("limits.cpu",)),
        ({"emptyDir": {"sizeLimit": "1Gi"}}, {"emptyDir": {"sizeLimit": "1024Mi"}}, ()),
    ],
)  # fmt: skip
def test_differences_are_named_by_their_path(wanted, live, paths):
    assert differences(wanted, live) == paths


@pytest.mark.parametrize(
    ("one", "other"),
    [("100m", "0.1"), ("1Gi", "1024Mi"), ("1e3", "1k"), (2, "2000m"), ("1.5", "1500m"), ("1M", "1000k")],
)  # fmt: skip
def test_quantities_that_are_written_differently_are_equal(one, other):
    assert quantity(one) == quantity(other) is not None


@pytest.mark.parametrize("word", ["", "Always", "1.2.3", "1Zi", True, None, "1 Gi"])
def test_other_words_are_no_quantities(word):
    assert quantity(word) is None
