"""The tools behind `make`: the guard of the kernels' symbols, the stamps, the search for a Python and a compiler."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"


def load(name: str) -> ModuleType:
    """A module below tools/, which is no installed package."""
    if str(TOOLS) not in sys.path:
        sys.path.insert(0, str(TOOLS))
    return importlib.import_module(name)


# --- check_isa_symbols --------------------------------------------------------------------------------------------


def test_shared_symbols_outside_the_namespace_are_found() -> None:
    guard = load("check_isa_symbols")
    listing = (
        "_ZN7fastllm3cpu8isa_avx24rowsEPf T 0 10\n"  # ours, in the namespace
        "_ZSt3minIfERKT_S2_S2_ W 0 10\n"  # std::min<float>, weak: the linker may take this copy
        "_ZN7fastllm3cpu5widthE u 0 4\n"
        "_ZN7fastllm4core4helpEv T 0 4\n"  # global, outside
        "_ZL5table r 0 4\n"  # private
        "_ZNSt6ranges4copyE C 1 1\n"  # an empty object without instructions
        "DW.ref.__gxx_personality_v0 V 0 8\n"
    )
    found = [name for _, name in guard.offenders(listing, "fastllm::cpu::isa_avx2")]
    assert found == ["_ZSt3minIfERKT_S2_S2_", "_ZN7fastllm3cpu5widthE", "_ZN7fastllm4core4helpEv"]
    assert "_ZN7fastllm3cpu8isa_avx24rowsEPf" in [
        name for _, name in guard.offenders(listing, "fastllm::cpu::isa_neon")
    ]


@pytest.mark.skipif(shutil.which("c++") is None or shutil.which("nm") is None, reason="needs c++ and nm")
def test_the_guard_reads_real_objects(tmp_path: Path) -> None:
    source = tmp_path / "kernel.cpp"
    source.write_text(
        "template <class T> __attribute__((noinline)) T twice(T x) { return x + x; }\n"
        "namespace fastllm::cpu::isa_avx2 { float run(float x) { return twice(x); } }\n",
        encoding="utf-8",
    )
    codes = {}
    for flag in ("-fweak", "-fno-weak"):
        built = tmp_path / f"kernel{flag}.o"
        done = subprocess.run(["c++", "-O1", flag, "-c", str(source), "-o", str(built)], check=False)
        if done.returncode != 0:
            pytest.skip(f"this compiler has no {flag}")
        command = [
            sys.executable,
            str(TOOLS / "check_isa_symbols.py"),
            "--namespace",
            "fastllm::cpu::isa_avx2",
            str(built),
        ]
        codes[flag] = subprocess.run(command, capture_output=True, check=False).returncode
    assert codes == {"-fweak": 1, "-fno-weak": 0}


# --- stamps -------------------------------------------------------------------------------------------------------


def test_a_digest_changes_with_contents_and_names_and_not_with_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamps = load("house.stamps")
    monkeypatch.setattr(stamps, "ROOT", tmp_path)
    (tmp_path / "src").mkdir()
    file = tmp_path / "src" / "a.cpp"
    file.write_text("1", encoding="utf-8")
    first = stamps.digest(["src"])
    os.utime(file, (1, 1))
    (tmp_path / "src" / "a.pyc").write_text("cache", encoding="utf-8")
    assert stamps.digest(["src"]) == first
    assert stamps.digest(["src"], "g++") != first
    file.write_text("2", encoding="utf-8")
    second = stamps.digest(["src"])
    file.rename(tmp_path / "src" / "b.cpp")
    third = stamps.digest(["src"])
    (tmp_path / "src" / "c.cpp").write_text("", encoding="utf-8")
    assert len({first, second, third, stamps.digest(["src"])}) == 4


def test_stamps_come_back_and_a_broken_one_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = load("house.stamps")
    monkeypatch.setattr(stamps, "_FOLDER", tmp_path / "stamps")
    assert stamps.read("wheel") == {}
    stamps.write("wheel", key="k", wheel="w")
    assert stamps.read("wheel") == {"key": "k", "wheel": "w"}
    (tmp_path / "stamps" / "wheel.json").write_text('{"key": ', encoding="utf-8")
    assert stamps.read("wheel") == {}
    stamps.forget("wheel")
    stamps.forget("wheel")


# --- the machine --------------------------------------------------------------------------------------------------


def test_what_is_missing_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doctor = load("house.doctor")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert doctor.report(doctor.examine(), quiet=True) is False
    shown = capsys.readouterr().out
    assert "C++20 compiler" in shown
    assert shown.count("install it:") >= 3  # compiler, make, git


def test_a_compiler_that_cannot_do_cxx20_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = load("house.doctor")
    old = tmp_path / "old-c++"
    old.write_text("#!/bin/sh\necho 'probe.cpp:1: error: unknown -std=c++20' >&2\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    monkeypatch.setenv("CXX", str(old))
    compiler, why_not = doctor.find_compiler()
    assert compiler is None
    assert "unknown -std=c++20" in why_not


def test_the_search_for_python_says_why_it_refuses(tmp_path: Path) -> None:
    def search(python: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "PY": python}
        command = ["sh", str(TOOLS / "find_python.sh")]
        return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)

    found = search(sys.executable)
    assert (found.returncode, found.stdout.strip()) == (0, sys.executable)
    old = tmp_path / "old-python"
    old.write_text("#!/bin/sh\necho 'is Python 3.9.2, and 3.10 to 3.13 is needed' >&2\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    refused = search(str(old))
    assert refused.returncode == 1
    assert "is Python 3.9.2" in refused.stderr
    assert "apt-get install" in refused.stderr
    assert search("no-such-python").returncode == 1


# --- GPUs and other Pythons ---------------------------------------------------------------------------------------


def program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ("echo 9.0; echo 9.0", "90a-real"),
        ("echo 8.6; echo 12.0", "86-real;120a-real"),
        ("echo 7.5", ""),  # older than what the kernels need
        ("echo 'NVIDIA-SMI has failed because it couldn'; exit 9", ""),
        ("echo '[N/A]'", ""),
    ],
)
def test_gpus_are_asked_for_their_architecture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str, expected: str
) -> None:
    gpu = load("house.gpu")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.architectures() == ""
    program(tmp_path / "nvidia-smi", says)
    assert gpu.architectures() == expected


def test_a_build_for_the_gpu_gets_a_compiler_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps, gpu = load("house.steps"), load("house.gpu")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(steps, "build_environment", lambda: tmp_path)
    monkeypatch.setattr(steps, "pip", lambda folder, *words: asked.append(words))
    monkeypatch.setattr(gpu, "architectures", lambda: "90a-real")
    for name in ("FASTLLM_CUDA", "CUDAARCHS"):
        monkeypatch.delenv(name, raising=False)

    monkeypatch.setattr(gpu, "compiler", lambda: "/usr/local/cuda/bin/nvcc")
    assert steps.cuda_settings() == {"FASTLLM_CUDA": "ON", "CUDAARCHS": "90a-real"}
    assert asked == []

    monkeypatch.setattr(gpu, "compiler", lambda: None)
    assert steps.cuda_settings()["FASTLLM_CUDA"] == "ON"
    assert set(steps.CUDA_WHEELS) <= set(asked[0])

    def offline(folder: Path, *words: str) -> None:
        raise steps.StepError("[run] pip ended with 1.")

    monkeypatch.setattr(steps, "pip", offline)
    assert steps.cuda_settings() == {}
    assert "THE GPU WILL NOT BE USED: [run] pip ended with 1." in capsys.readouterr().out

    monkeypatch.setenv("FASTLLM_CUDA", "OFF")
    monkeypatch.setattr(gpu, "compiler", lambda: "nvcc")
    assert steps.cuda_settings() == {}


def test_pythons_are_found_behind_shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pythons = load("house.pythons")
    real = f"{sys.version_info.major}.{sys.version_info.minor}"
    other = next(version for version in pythons.SUPPORTED if version != real)
    program(tmp_path / f"python{other}", "echo 'pyenv: command not found' >&2; exit 127")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    assert other not in pythons.find()
    folder = tmp_path / ".pyenv" / "versions" / f"{other}.1" / "bin"
    folder.mkdir(parents=True)
    program(folder / f"python{other}", f"echo {other} /opt/python{other}")
    assert pythons.find()[other] == f"/opt/python{other}"


# --- the conda recipe ---------------------------------------------------------------------------------------------


def test_without_its_scripts_the_recipe_is_not_built_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bootstrap, conda = load("bootstrap"), load("house.conda")
    monkeypatch.setenv("FASTLLM_CONDA_LAB", str(tmp_path))
    assert conda.lab() is None
    assert bootstrap.run_conda([]) == 0
    assert "!!! THE CONDA RECIPE WAS NOT BUILT: neither" in capsys.readouterr().out
    for name in ("ci_build.py", "mini_channel.py"):
        (tmp_path / name).write_text("", encoding="utf-8")
    assert conda.lab() == tmp_path
    monkeypatch.setattr(conda.pythons, "find", lambda: {"3.13": "python3.13"})
    assert "no Python 3.11 or 3.12" in conda.build_and_test()


def test_a_cpu_package_that_grew_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conda = load("house.conda")
    monkeypatch.setattr(conda, "_WORK", tmp_path)
    folder = tmp_path / "out" / "linux-64"
    folder.mkdir(parents=True)
    for name, size in (("cpu_py311h1_0", 7), ("cuda130_py311h1_200", conda.LARGEST_CPU_PACKAGE + 1)):
        with (folder / f"fastllm-0.1.0-{name}.conda").open("wb") as file:
            file.truncate(size)
    assert conda.sizes() == {
        "fastllm-0.1.0-cpu_py311h1_0.conda": 7,
        "fastllm-0.1.0-cuda130_py311h1_200.conda": 25_000_001,
    }
    with (folder / "fastllm-0.1.0-cpu_py312h1_0.conda").open("wb") as file:
        file.truncate(conda.LARGEST_CPU_PACKAGE)
    with pytest.raises(conda.StepError, match=r"cpu_py312h1_0.conda has 25000000 bytes"):
        conda.sizes()


def test_the_variant_is_the_one_of_the_toolkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conda = load("house.conda")
    monkeypatch.setattr(conda, "_WORK", tmp_path)
    for version, file in (("12.9", "cuda12.yaml"), ("13.0", "cuda13.yaml")):
        arguments = conda._variant((version, Path("/usr/local/cuda")), ROOT)
        assert arguments[1] == ROOT / "recipe" / "variants" / file
        assert "90a-real" in Path(arguments[3]).read_text(encoding="utf-8")
    assert conda._variant(("11.8", Path("/usr/local/cuda")), ROOT) is None


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_sources_are_exported_as_git_would_commit_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load("house.source")
    root, out = tmp_path / "root", tmp_path / "out"
    (root / "sub").mkdir(parents=True)
    monkeypatch.setattr(source, "ROOT", root)
    for name, text in ((".gitignore", "*.o\n"), ("a.txt", "1"), ("sub/b c.txt", "2"), ("a.o", "x"), ("gone", "3")):
        (root / name).write_text(text, encoding="utf-8")
    for words in (["init", "-q"], ["add", "a.txt", "gone"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    (root / "gone").unlink()
    out.mkdir()
    (out / "left over").write_text("", encoding="utf-8")
    source.export(out)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == [
        ".gitignore",
        "a.txt",
        "sub/b c.txt",
    ]
    shutil.rmtree(root / ".git")
    with pytest.raises(load("house.steps").StepError, match="git ls-files"):
        source.export(out)
