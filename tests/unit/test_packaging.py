"""pyproject.toml, the conda recipe, the conda environments and the change log say the same."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# Where conda-forge's name differs from PyPI's.
CONDA_NAMES = {"build": "python-build", "torch": "pytorch"}
# Build requirements that a recipe spells with Jinja2, or that have no name on PyPI.
COMPILERS = {"cxx-compiler", "make"}
# What users get besides fastllm's own dependencies, and what it takes to build from a checkout.
USERS_EXTRA = {"jupyterlab", "pip", *COMPILERS}
RECIPE = "recipe/meta.yaml"


@pytest.fixture(scope="session")
def project(repository: Path) -> dict[str, Any]:
    with (repository / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def requirements(lines: list[str]) -> dict[str, SpecifierSet]:
    """PEP 508 lines by conda's name; extras of fastllm itself are left out."""
    found = {}
    for line in lines:
        requirement = Requirement(line)
        name = requirement.name.lower().replace("huggingface-hub", "huggingface_hub")
        if name != "fastllm":
            found[CONDA_NAMES.get(name, name)] = requirement.specifier
    return found


def conda_specs(lines: list[str]) -> dict[str, SpecifierSet]:
    """Lines like ``numpy >=1.24,<3`` by name."""
    found = {}
    for line in lines:
        name, _, version = line.partition(" ")
        assert name not in found, f"{name} is listed twice"
        found[name] = SpecifierSet(version)
    return found


def render(text: str, **names: Any) -> dict[str, Any]:
    """The recipe for one variant: selectors, then Jinja2, then YAML, as conda-build does it."""
    names = {"linux": True, "win": False, "osx": False, "build_platform": "x", "target_platform": "x", **names}
    lines = []
    for line in text.splitlines():
        selector = None if line.lstrip().startswith("#") else re.search(r"#\s*\[([^\[\]]+)\]\s*$", line)
        if selector is None or eval(selector[1], {}, dict(names)):  # the recipe is ours
            lines.append(line)
    functions = {"compiler": "compiler {}".format, "stdlib": "stdlib {}".format}
    template = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string("\n".join(lines))
    rendered = yaml.safe_load(template.render(**names, **functions, CONDA_PY="311", PKG_HASH="1234567"))
    assert isinstance(rendered, dict)
    return rendered


@pytest.fixture(scope="session")
def recipe_text(repository: Path) -> str:
    return (repository / RECIPE).read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def recipes(recipe_text: str, repository: Path) -> dict[str, dict[str, Any]]:
    """The rendered recipe of every variant."""
    found = {"None": render(recipe_text, cuda_compiler_version="None")}
    for file in sorted((repository / "recipe" / "variants").glob("*.yaml")):
        variant = {key: values[0] for key, values in yaml.safe_load(file.read_text(encoding="utf-8")).items()}
        found[variant["cuda_compiler_version"]] = render(recipe_text, **variant)
    assert set(found) == {"None", "12.9", "13.0"}
    return found


def environment(repository: Path, name: str) -> dict[str, SpecifierSet]:
    content = yaml.safe_load((repository / name).read_text(encoding="utf-8"))
    assert content["channels"] == ["conda-forge"]
    assert all(isinstance(line, str) for line in content["dependencies"]), "no pip section: all of it is on the channel"
    return conda_specs(content["dependencies"])


# --- the version --------------------------------------------------------------------------------------------------


def test_one_version(project: dict[str, Any], recipes: dict[str, dict[str, Any]], repository: Path) -> None:
    version = project["project"]["version"]
    assert {str(recipe["package"]["version"]) for recipe in recipes.values()} == {version}
    newest = re.search(r"^## (\S+)", (repository / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


# --- the recipe ---------------------------------------------------------------------------------------------------


def test_the_recipe_runs_with_what_the_project_runs_with(
    project: dict[str, Any], recipes: dict[str, dict[str, Any]]
) -> None:
    wanted = requirements(project["project"]["dependencies"])
    for cuda, recipe in recipes.items():
        run = conda_specs(recipe["requirements"]["run"])
        assert run.pop("python") == SpecifierSet()  # the variant's, pinned by python_abi
        assert (run.pop("__cuda", None) is not None) == (cuda != "None")
        assert run == wanted


def test_the_recipe_builds_with_what_the_project_builds_with(
    project: dict[str, Any], recipes: dict[str, dict[str, Any]]
) -> None:
    tools = project["tool"]["scikit-build"]
    wanted = requirements(project["build-system"]["requires"])
    for cuda, recipe in recipes.items():
        host = conda_specs([line for line in recipe["requirements"]["host"] if not line.startswith("cuda")])
        assert host.pop("python") == host.pop("pip") == SpecifierSet()
        assert host == wanted
        build = recipe["requirements"]["build"]
        assert f"cmake {tools['cmake']['version']}" in build
        assert f"ninja {tools['ninja']['version']}" in build
        assert {"compiler c", "compiler cxx", "stdlib c"} <= set(build)
        assert ("compiler cuda" in build) == (cuda != "None")


def test_extras_are_constrained_alike(project: dict[str, Any], recipes: dict[str, dict[str, Any]]) -> None:
    extras = project["project"]["optional-dependencies"]
    wanted = requirements(extras["notebook"] + extras["hub"])
    loops = {name: spec for name, spec in requirements(extras["test"]).items() if name in ("trio", "uvloop")}
    for recipe in recipes.values():
        assert conda_specs(recipe["requirements"]["run_constrained"]) == wanted | loops


def test_builds_are_told_apart(recipes: dict[str, dict[str, Any]]) -> None:
    """The solver prefers the higher number, so a GPU build must have it; names begin as `fastllm=*=cpu*` asks."""
    cpu = recipes["None"]["build"]
    assert cpu["number"] < 100
    assert cpu["string"] == f"cpu_py311h1234567_{cpu['number']}"
    for cuda in ("12.9", "13.0"):
        build = recipes[cuda]["build"]
        assert build["number"] == cpu["number"] + 200
        assert build["string"] == f"cuda{cuda.replace('.', '')}_py311h1234567_{build['number']}"
        host = recipes[cuda]["requirements"]["host"]
        assert f"cuda-version {cuda}.*" in host
        # what is linked statically must not become a dependency
        assert recipes[cuda]["build"]["ignore_run_exports_from"] == ["cuda-cudart-dev"]
        # the code's own limit: compute capability 8.0
        (archs,) = recipes[cuda]["build"]["script_env"]
        assert min(int(number) for number in re.findall(r"(\d+)a?-real", archs)) >= 80


def test_other_platforms_of_the_recipe(recipe_text: str) -> None:
    assert render(recipe_text, cuda_compiler_version="None", win=True, linux=False)["build"]["skip"] is True
    mac = {"osx": True, "linux": False}
    assert "skip" not in render(recipe_text, cuda_compiler_version="None", **mac)["build"]
    assert render(recipe_text, cuda_compiler_version="13.0", **mac)["build"]["skip"] is True
    crossed = render(recipe_text, cuda_compiler_version="None", target_platform="linux-aarch64")
    assert "cross-python_linux-aarch64" in crossed["requirements"]["build"]


def test_files_that_the_recipe_names_exist(recipes: dict[str, dict[str, Any]], repository: Path) -> None:
    recipe = recipes["None"]
    assert (repository / recipe["about"]["license_file"]).is_file()
    assert recipe["about"]["license"] == "Apache-2.0"
    for folder in recipe["test"]["source_files"]:
        assert list((repository / folder).glob("test_*.py"))


def test_no_list_ends_a_line_of_the_recipe(repository: Path) -> None:
    """conda-build takes ``[...]`` at the end of a line for a selector, with or without a ``#`` before it."""
    for file in [repository / RECIPE, *(repository / "recipe").rglob("*.yaml")]:
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            code = line.split("#")[0].rstrip()
            assert not code.endswith("]"), f"{file.name}:{number}: {line}"


def test_the_tools_name_the_same_compiler_wheels(project: dict[str, Any], repository: Path) -> None:
    text = (repository / "tools" / "house" / "steps.py").read_text(encoding="utf-8")
    block = re.search(r"^CUDA_WHEELS = \((.*?)^\)", text, re.MULTILINE | re.DOTALL)
    assert block is not None
    named = requirements(re.findall(r'"([^"]+)"', block[1]))
    assert named == requirements(project["project"]["optional-dependencies"]["cuda"])


# --- the environments ---------------------------------------------------------------------------------------------


def test_the_users_environment(project: dict[str, Any], repository: Path) -> None:
    extras = project["project"]["optional-dependencies"]
    wanted = requirements(
        [
            f"python{project['project']['requires-python']},<3.14",
            *project["project"]["dependencies"],
            *project["build-system"]["requires"],
            *extras["notebook"],
            *extras["hub"],
            f"cmake{project['tool']['scikit-build']['cmake']['version']}",
            f"ninja{project['tool']['scikit-build']['ninja']['version']}",
        ]
    )
    found = environment(repository, "environment.yml")
    assert {name: spec for name, spec in found.items() if name not in USERS_EXTRA} == wanted


def test_the_contributors_environment(project: dict[str, Any], repository: Path) -> None:
    extras = project["project"]["optional-dependencies"]
    users = environment(repository, "environment.yml")
    wanted = users | requirements(extras["test"] + extras["parity"] + extras["dev"])
    found = environment(repository, "environment-dev.yml")
    assert {name: spec for name, spec in found.items() if name not in COMPILERS} == {
        name: spec for name, spec in wanted.items() if name not in COMPILERS
    }


def test_the_local_channel_carries_what_the_environments_name(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make conda` solves the environment files against a channel of these roots, less what it says it leaves out."""
    monkeypatch.syspath_prepend(str(repository / "tools"))
    house = importlib.import_module("house.conda")
    script = (repository / "tools" / "check_conda_solve.py").read_text(encoding="utf-8")
    listed = re.search(r"NOT_CARRIED = \{(.*?)\}", script, re.DOTALL)
    assert listed is not None
    left_out = set(re.findall(r'"([^"]+)"', listed[1]))
    carried = {CONDA_NAMES.get(name, name) for name in (*house.RECIPE_ROOTS, *house.ENVIRONMENT_ROOTS)}
    carried |= {"python", "cmake", "ninja", "patchelf"}  # tools and interpreters that the channel is made of
    for name in ("environment.yml", "environment-dev.yml"):
        lines = yaml.safe_load((repository / name).read_text(encoding="utf-8"))["dependencies"]
        missing = {re.split(r"[ <>=]", line)[0] for line in lines} - carried - left_out
        assert not missing, f"{name} names {missing}: add them to ENVIRONMENT_ROOTS in tools/house/conda.py"


def test_supported_pythons_are_the_same_everywhere(project: dict[str, Any], repository: Path) -> None:
    listed = [line.rsplit(" ", 1)[1] for line in project["project"]["classifiers"] if re.search(r":: 3\.\d+$", line)]
    python = environment(repository, "environment.yml")["python"]
    assert listed == [version for version in (f"3.{minor}" for minor in range(8, 20)) if version in python]
    assert f">={listed[0]}" == project["project"]["requires-python"]
    config = yaml.safe_load(
        re.sub(r"^.*# \[osx\]$", "", (repository / "recipe/conda_build_config.yaml").read_text("utf-8"), flags=re.M)
    )
    for spec in config["python"]:
        assert spec.split(".*")[0] in listed


# --- the reader of shared objects, which tests/conda judges packages with -----------------------------------------


@pytest.mark.skipif(shutil.which("readelf") is None, reason="needs readelf")
def test_shared_objects_are_read_as_readelf_reads_them(repository: Path) -> None:
    spec = importlib.util.spec_from_file_location("shared_objects", repository / "tests/conda/shared_objects.py")
    assert spec is not None
    assert spec.loader is not None
    reader = importlib.util.module_from_spec(spec)
    sys.modules["shared_objects"] = reader  # dataclasses look their module up
    spec.loader.exec_module(reader)
    files = [file for folder in (np, importlib.import_module("fastllm")) for file in _native(folder)]
    assert len(files) > 5
    for file in files:
        shown = subprocess.run(["readelf", "-dVW", file], capture_output=True, text=True, check=True).stdout
        found = reader.read(file)
        assert found.needed == re.findall(r"\(NEEDED\).*\[(.*)\]", shown)
        paths = re.findall(r"\(R(?:UN)?PATH\).*\[(.*)\]", shown)
        assert found.search_paths == [entry for line in paths for entry in line.split(":")]
        needs = shown.partition("Version needs section")[2]
        assert {name for names in found.versions.values() for name in names} == set(re.findall(r"Name: (\S+)", needs))
        assert set(found.versions) == set(re.findall(r"File: (\S+)", needs))
    with pytest.raises(ValueError, match="not with a 64-bit little-endian ELF header"):
        reader.read(repository / "LICENSE")


def _native(package: Any) -> list[Path]:
    return sorted(Path(package.__file__).parent.rglob("*.so"))
