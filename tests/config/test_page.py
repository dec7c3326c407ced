"""docs/configuration.md and the schemas: what they say is so, and their examples work."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from nvmet_vdev import config
from nvmet_vdev.config import schema
from nvmet_vdev.config.fields import fields
from tests.config import nvmetcli, page
from tests.config.strategies import configs, differ
from tests.product import run, serve

TEXT = page.PAGE.read_text()
DOCS = page.PAGE.parent
EXAMPLES = re.findall(r"^```toml\n# (\S+)$", TEXT, re.MULTILINE)


def test_all_keys_and_all_that_is_skipped_are_listed() -> None:
    assert page.replaced(TEXT) == TEXT, "run `python -m tests.config.page`"


def test_the_example_of_everything_has_every_key() -> None:
    tree: Any = tomllib.loads(page.example("everything.toml"))
    for heading, node in page.TABLES:
        table = tree
        for name in heading.strip("[]").split("."):
            table = table[name][0] if isinstance(table[name], list) else table[name]
        assert {field.name for field in fields(node).values() if field.node is None} <= set(table), heading


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_configuration_by_reader_and_schema(name: str) -> None:
    text = page.example(name)
    assert config.loads(text, "toml", strict=True).notes == []
    jsonschema.validate(tomllib.loads(text), schema.schemas()["config.toml.schema.json"])


def test_the_schemas_in_the_documents_are_those_of_the_keys() -> None:
    for name, made in schema.schemas().items():
        published = json.loads((DOCS / name).read_text())
        assert published == made, "run `python -m nvmet_vdev.config.schema docs`"
        jsonschema.Draft202012Validator.check_schema(published)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs().filter(differ))
def test_whatever_is_saved_has_the_form_of_the_schemas(some: config.Config) -> None:
    made = schema.schemas()
    jsonschema.validate(tomllib.loads(config.dumps(some, "toml")), made["config.toml.schema.json"])
    jsonschema.validate(json.loads(config.dumps(some, "json")), made["config.schema.json"])


def test_what_nvmetcli_saves_has_the_form_of_the_schema() -> None:
    made = schema.schemas()["config.schema.json"]
    jsonschema.validate(nvmetcli.KERNEL, made)
    jsonschema.validate(nvmetcli.moved(), made)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"subsystems": [{"nqn": "a", "attr": {"seriel": "1"}}]}, made)


def shell(start: str) -> list[str]:
    """The commands of the block that begins so."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    (block,) = (one for one in blocks if one.startswith(start))
    return [line for line in block.splitlines() if line]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the paths of the page lead here."""
    for name in ("run", "srv", "var"):
        (tmp_path / name).mkdir()
    text = moved(page.example("cluster.toml"), tmp_path)
    # Made at once, and gone at once.
    (tmp_path / "cluster.toml").write_text(text.replace("10G", "16M"))
    return tmp_path


def moved(text: str, place: Path) -> str:
    for name, there in (("/run/nvmet-vdev", "run"), ("/srv", "srv"), ("/var/lib", "var")):
        text = text.replace(name, str(place / there))
    return text


def test_the_drive_for_two_vms_is_served_and_changed_as_the_page_says(place: Path) -> None:
    _, check, start = (shlex.split(moved(line, place)) for line in shell("mkdir"))
    done = run(*check[1:], cwd=place)
    assert done.stdout == "cluster.toml: 1 subsystem, 1 namespace, 4 ports, 2 hosts\n"
    assert start[:2] == ["nvmet-vdev", "serve"]
    with serve(*start[2:], cwd=place, command="serve") as server:
        control = str(place / "run" / "control.sock")
        lines = [*shell("export"), *shell("nvmet-vdev ctl ana"), *shell("nvmet-vdev ctl ns")]
        for line in lines:
            program, *words = shlex.split(moved(line, place))
            if program == "export":
                assert words == [f"NVMET_VDEV_CONTROL={control}"]
                continue
            result = run(*words, cwd=place, NVMET_VDEV_CONTROL=control)
            assert result.returncode == 0, (line, result.stderr)
        found = run("ctl", "ls", "--output", "json", cwd=place, NVMET_VDEV_CONTROL=control)
        tree = json.loads(found.stdout)
        assert server.stop() == 0
    assert [one["hostnqn"][-3:] for one in tree["ports"]] == ["vm1", "vm1", "vm2", "vm2"]
    assert len({one["hostid"] for one in tree["ports"]}) == 2
    first, second = tree["subsystems"][0]["namespaces"]
    assert first["size"] == 20 << 30
    assert [one[-3:] for one in second["hosts"]] == ["vm1"]
    saved = config.load(place / "cluster.toml").config
    assert [one.nsid for one in saved.subsystems[0].namespaces] == [1, 2]


def test_the_command_lines_of_the_vms_lead_to_the_sockets_of_the_ports() -> None:
    (block,) = re.findall(r"^```qemu\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    machines = block.replace("\\\n", " ").split("\n\n")
    ports = tomllib.loads(page.example("cluster.toml"))["port"]
    for machine, name in zip(machines, ("vm1", "vm2"), strict=True):
        words = shlex.split(machine)
        assert "share=on" in machine
        devices = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-device"]
        assert [device["socket"]["path"] for device in devices] == [
            port["traddr"] for port in ports if port["hostnqn"].endswith(name)
        ]


def test_the_parts_of_nvmetclis_file_that_are_to_be_changed_are_enough() -> None:
    blocks = [json.loads(one) for one in re.findall(r"^```json\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)]
    document = json.loads(nvmetcli.text(nvmetcli.KERNEL))
    document["subsystems"][0]["allowed_hosts"] = [
        blocks[1]["vdev"]["hostnqn"],
        "nqn.2024-01.com.example:a",
    ]
    document["ports"][0]["addr"] |= blocks[0]["addr"]
    document["ports"][0] |= {"vdev": blocks[1]["vdev"]}
    found = config.loads(nvmetcli.text(document), "json").config
    assert (found.ports[0].traddr, found.ports[0].hostnqn) == (
        "/run/nvmet-vdev/vm1.sock",
        blocks[1]["vdev"]["hostnqn"],
    )


@pytest.mark.parametrize("command", ["serve", "save"])
def test_help_fits_a_terminal_and_its_examples_work(place: Path, command: str) -> None:
    shown = run(command, "--help", cwd=place, COLUMNS="100")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert max(len(line) for line in shown.stdout.splitlines()) <= 100
    (place / "drives.toml").write_text((place / "cluster.toml").read_text())
    (place / "nvmet.json").write_text(config.dumps(config.load(place / "drives.toml").config, "json"))
    examples = shown.stdout.partition("Examples:")[2].partition("\n\n")[0].strip().splitlines()
    assert examples
    for example in examples:
        program, *words = shlex.split(re.split(r"\s{2,}", example.strip())[0].replace("/tmp", str(place)))
        assert program == "nvmet-vdev"
        if command == "serve" and "--check" not in words:
            with serve(*words[1:], cwd=place, command="serve") as server:
                assert server.stop() == 0
        elif command == "serve":
            assert run(*words, cwd=place).returncode == 0
        else:
            with serve("-c", "drives.toml", cwd=place, command="serve") as server:
                done = run(*words, cwd=place)
                assert done.returncode == 0, done.stderr
                assert server.stop() == 0


def test_links_of_the_page_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    headings = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT):
        file, _, anchor = target.partition("#")
        assert (DOCS / file).exists() if file else anchor in headings, target
