"""The recipe of the lab's machines."""

from dataclasses import replace

import pytest

from provision.machines.image import (
    DEFAULT_MIRROR,
    bare,
    containerfile,
    debian_mirror,
    full,
    operators_mirror,
)


def test_an_image_is_named_by_its_recipe():
    recipe = bare(DEFAULT_MIRROR)
    assert recipe.tag == bare(DEFAULT_MIRROR).tag
    assert recipe.tag.startswith("localhost/clusterctl-machine:bare-")
    changed = [
        bare("http://mirror.example/debian"),
        replace(recipe, packages=(*recipe.packages, "curl")),
        replace(recipe, files={**recipe.files, "/etc/motd": "hello\n"}),
        replace(recipe, commands=(*recipe.commands, "true")),
        replace(recipe, base="localhost/other:1"),
    ]
    assert len({recipe.tag, *(other.tag for other in changed)}) == 1 + len(changed)


def test_full_is_built_on_bare_and_changes_with_it():
    assert full(DEFAULT_MIRROR).base == bare(DEFAULT_MIRROR).tag
    assert full(DEFAULT_MIRROR).tag != full("http://mirror.example/debian").tag


@pytest.mark.parametrize("recipe", [bare(DEFAULT_MIRROR), full(DEFAULT_MIRROR)])
def test_no_image_keeps_what_must_differ_between_machines(recipe):
    layers = [line for line in containerfile(recipe).splitlines() if line.startswith("RUN")]
    assert len(layers) == 1  # what one layer deletes, an earlier one would still hold
    text = containerfile(recipe)
    install = text.index("apt-get install")
    for removal in ("/etc/ssh/ssh_host_*", "/var/lib/dbus/machine-id", ": > /etc/machine-id"):
        assert text.index(removal) > install


def test_machines_start_services_on_installation_as_any_debian_does():
    text = containerfile(bare(DEFAULT_MIRROR))
    assert text.rindex("rm -f /usr/sbin/policy-rc.d") > text.index("apt-get install")


@pytest.mark.parametrize(
    ("sources", "mirror"),
    [
        ("", DEFAULT_MIRROR),
        ("deb http://deb.debian.org/debian/ bookworm main", "http://deb.debian.org/debian"),
        ("Types: deb\nURIs: https://m.example/debian\n", "https://m.example/debian"),
        ("deb [signed-by=/k] https://m.example/debian trixie main", "https://m.example/debian"),
        ("# deb http://old.example/debian bookworm main", DEFAULT_MIRROR),
        ("deb http://archive.ubuntu.com/ubuntu noble main", DEFAULT_MIRROR),
        ("URIs: http://m.example/debian-security\n", DEFAULT_MIRROR),
        ("deb cdrom:[Debian]/debian bookworm main", DEFAULT_MIRROR),
    ],
)
def test_the_operators_own_debian_mirror_is_used(sources, mirror):
    assert debian_mirror(sources) == mirror


def test_apts_files_of_both_formats_are_read(tmp_path):
    assert operators_mirror(tmp_path) == DEFAULT_MIRROR
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "x.sources").write_text("URIs: http://m.example/debian\n")
    assert operators_mirror(tmp_path) == "http://m.example/debian"
    (tmp_path / "sources.list").write_text("deb http://first.example/debian bookworm main\n")
    assert operators_mirror(tmp_path) == "http://first.example/debian"
