"""Each hint comes from the rule that failed, for every field of the inventory."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.inventory.draft import HostData
from provision.inventory.settings import ClusterData
from provision.inventory.wording import example, fields, validate
from provision.model.cluster import Cluster
from provision.model.form import Form

FEW = settings(deadline=None, max_examples=20)


def walk(model, path=()):
    """Give (path, field) of all fields that a file may set, sections included."""
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        yield here, field
        if hasattr(field.annotation, "model_fields"):
            yield from walk(field.annotation, here)


def forms_of(field):
    """Give the forms of a field's own value, or of the items of its list."""
    found = [rule for rule in field.metadata if isinstance(rule, Form)]
    parts = [field.annotation]
    while parts:
        part = parts.pop()
        found += [rule for rule in getattr(part, "__metadata__", ()) if isinstance(rule, Form)]
        parts += get_args(part)
    return found


MODELS = {"cluster": ClusterData, "host": HostData}
FIELDS = {
    ".".join((where, *path)): (model, path, field)
    for where, model in MODELS.items()
    for path, field in walk(model)
}
FORMS = {name: rules for name, (_, _, field) in FIELDS.items() if (rules := forms_of(field))}


def check(model, path, value):
    """Give the findings of one value, alone in its file."""
    raw = value
    for step in reversed(path):
        raw = {step: raw}
    named = {"name": "demo"} if model is ClusterData else {}
    return validate(model, {**named, **raw}, "x", named)[1]


def test_the_fields_with_a_form_are_found():
    assert FORMS.keys() >= {
        "cluster.name",
        "cluster.state",
        "cluster.ec2.owner",
        "cluster.ec2.vpc",
        "cluster.firewall.allow",
        "cluster.pod_security.exempt",
    }


@pytest.mark.parametrize("model", [ClusterData, HostData, Cluster])
def test_no_field_has_a_pattern_without_words_for_it(model):
    # A pattern of pydantic's own is in the schema; that of a Form is not.
    assert '"pattern"' not in str(model.model_json_schema()).replace("'", '"')


def test_no_two_forms_have_the_same_words():
    rules = {rule for found in FORMS.values() for rule in found}

    assert len({rule.words for rule in rules}) == len(rules)


@pytest.mark.parametrize("name", FORMS)
@FEW
@given(data=st.data())
def test_a_value_of_another_form_gets_the_hint_of_its_own_rule(name, data):
    model, path, field = FIELDS[name]
    (rule,) = FORMS[name]
    text = data.draw(st.text("aA0-_./: ", max_size=60).filter(lambda t: not rule.matches(t)))
    in_list = isinstance(example(field), list)

    (finding,) = check(model, path, [text] if in_list else text)

    assert finding.where == ".".join(("x", *path, *(["0"] if in_list else [])))
    assert finding.hint == f"it must be {rule.words}"


@pytest.mark.parametrize("name", FIELDS)
def test_the_example_that_a_hint_shows_is_accepted(name):
    model, path, field = FIELDS[name]
    shown = example(field)
    if shown is not None:
        assert check(model, path, shown) == []


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_that_is_no_secret_and_no_choice_has_an_example(name):
    _, path, field = FIELDS[name]
    secret = not field.repr and path[-1] not in {"http", "https"}
    assert secret or example(field) is not None


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.just("\ud800"),
    st.lists(st.integers(), min_size=1, max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


@pytest.mark.parametrize("name", FIELDS)
@FEW
@given(value=JUNK)
def test_whatever_a_field_is_set_to_the_hint_is_in_our_own_words(name, value):
    model, path, _ = FIELDS[name]

    for finding in check(model, path, value):
        assert finding.hint
        assert "Input should" not in finding.hint
        assert "valid " not in finding.hint


@pytest.mark.parametrize("name", FIELDS)
def test_a_misspelt_field_gets_the_right_name_as_hint(name):
    model, path, _ = FIELDS[name]
    *section, last = path
    wrong = f"{last}x"

    (finding,) = check(model, (*section, wrong), 1)

    assert finding.where == ".".join(("x", *section, wrong))
    assert finding.what == "unknown field"
    assert finding.hint == f"did you mean {last!r}?"


def test_the_names_that_are_known_are_those_of_the_file():
    assert "machines" in fields(ClusterData)
    assert "_sudo" in fields(HostData)
