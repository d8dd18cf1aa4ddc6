import base64

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from provision.model.errors import TrustError
from provision.pki import kubeconfig

# A busy machine is no counterexample.
UNHURRIED = settings(deadline=None)

SERVER = "https://10.0.0.100:6443"
CA, CERT, KEY = b"the authority\n", b"the certificate\n", b"the key\n"
NEW = kubeconfig.embedded(SERVER, CA, kubeconfig.by_certificate(CERT, KEY), "jane@ha", "ha", "ha")

NAMES = st.sampled_from(["ha", "jane@ha", "prod", "dev", "kind-kind", "é"])
SETTINGS = st.dictionaries(
    st.sampled_from(["server", "token", "namespace", "insecure-skip-tls-verify", "extensions"]),
    st.text(max_size=8) | st.booleans() | st.lists(st.integers(), max_size=2),
    max_size=3,
)


def entries(kind: str):
    return st.none() | st.lists(
        st.builds(lambda name, settings: {"name": name, kind: settings}, NAMES, SETTINGS),
        max_size=4,
        unique_by=lambda entry: entry["name"],
    )


EXISTING = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.just("Config")},
    optional={
        "clusters": entries("cluster"),
        "users": entries("user"),
        "contexts": entries("context"),
        "current-context": st.just("prod"),
        "preferences": st.just({"colors": True}),
        "extensions": st.just([{"name": "x", "extension": {"a": 1}}]),
    },
)


def named(config: dict, key: str) -> dict:
    return {entry["name"]: entry for entry in config.get(key) or ()}


@UNHURRIED
@given(EXISTING)
def test_merging_keeps_other_entries_and_adds_the_clusters_own(existing: dict) -> None:
    new = yaml.safe_load(NEW)
    merged = yaml.safe_load(kubeconfig.merge(yaml.safe_dump(existing), NEW))
    for key in ("clusters", "users", "contexts"):
        assert named(merged, key) == named(existing, key) | named(new, key)
        assert len(merged[key]) == len(named(merged, key))
    changed = {"clusters", "users", "contexts", "current-context"}
    assert {k: v for k, v in merged.items() if k not in changed} == {
        k: v for k, v in existing.items() if k not in changed
    }
    assert merged["current-context"] == "ha"


@UNHURRIED
@given(EXISTING)
def test_merging_twice_is_merging_once(existing: dict) -> None:
    once = kubeconfig.merge(yaml.safe_dump(existing), NEW)
    assert kubeconfig.merge(once.decode(), NEW) == once


@pytest.mark.parametrize("nothing", [None, "", "\n", "# nothing here\n"])
def test_merging_into_nothing_gives_the_new_file(nothing: str | None) -> None:
    assert yaml.safe_load(kubeconfig.merge(nothing, NEW)) == yaml.safe_load(NEW)


def test_a_cluster_that_was_made_anew_replaces_its_old_entries() -> None:
    old = kubeconfig.embedded(
        "https://10.0.0.9:6443", b"old", {"token": "old"}, "jane@ha", "ha", "ha"
    )
    assert yaml.safe_load(kubeconfig.merge(old.decode(), NEW)) == yaml.safe_load(NEW)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("clusters: [\n", "no valid YAML near line 2"),
        ("a: b: c\n", "no valid YAML near line 1"),
        ("\x00", "no YAML"),
        ("- a\n- b\n", "not a mapping"),
        ("just text", "not a mapping"),
        ("kind: Pod\n", "its kind is 'Pod'"),
        ("clusters: {}\n", "'clusters' is not a list of named entries"),
        ("users: [text]\n", "'users' is not a list of named entries"),
        ("contexts: [{context: {}}]\n", "'contexts' is not a list of named entries"),
        ("a: 1\n---\nb: 2\n", "no valid YAML near line 2"),
    ],
)
def test_a_broken_file_is_refused_with_the_reason(broken: str, why: str) -> None:
    with pytest.raises(TrustError, match="cannot be merged into") as error:
        kubeconfig.merge(broken, NEW)
    assert why in error.value.message
    assert "-o FILE" in error.value.hint


def test_the_refusal_of_a_broken_file_quotes_none_of_its_keys() -> None:
    with pytest.raises(TrustError) as error:
        kubeconfig.merge("users:\n- user: {client-key-data: c2VjcmV0, : : :}}\n", NEW)
    assert "c2VjcmV0" not in f"{error.value.message} {error.value.hint} {error.value.__cause__!r}"


def test_a_kubeconfig_for_people_holds_everything_in_itself() -> None:
    config = yaml.safe_load(NEW)
    (cluster,), (user,), (context,) = config["clusters"], config["users"], config["contexts"]
    assert (config["apiVersion"], config["kind"]) == ("v1", "Config")
    assert cluster["cluster"]["server"] == SERVER
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == CA
    assert base64.b64decode(user["user"]["client-certificate-data"]) == CERT
    assert base64.b64decode(user["user"]["client-key-data"]) == KEY
    assert context["context"] == {"cluster": cluster["name"], "user": user["name"]}
    assert config["current-context"] == context["name"] == "ha"


def test_a_kubeconfig_for_programs_names_files_and_holds_no_secret() -> None:
    config = yaml.safe_load(
        kubeconfig.by_files(SERVER, "/ca.crt", "/s.crt", "/s.key", "system:kube-scheduler", "ha")
    )
    assert config["clusters"][0]["cluster"] == {
        "server": SERVER,
        "certificate-authority": "/ca.crt",
    }
    assert config["users"][0]["user"] == {"client-certificate": "/s.crt", "client-key": "/s.key"}
    assert config["contexts"] == [
        {
            "name": "system:kube-scheduler@ha",
            "context": {"cluster": "ha", "user": "system:kube-scheduler"},
        }
    ]
    assert config["current-context"] == "system:kube-scheduler@ha"


@pytest.mark.parametrize("token", ["abcdef.0123456789abcdef", "000000.0000000000000000"])
def test_a_bootstrap_kubeconfig_holds_the_token_as_text(token: str) -> None:
    config = yaml.safe_load(kubeconfig.by_token(SERVER, "/ca.crt", token, "ha"))
    assert config["users"][0]["user"] == {"token": token}
    assert config["clusters"][0]["cluster"]["certificate-authority"] == "/ca.crt"
