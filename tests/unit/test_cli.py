"""The command line, as its user meets it: in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")

COMMAND = [sys.executable, "-W", "error", "-m", "fastllm"]


def fastllm(*arguments: str, stdin: str = "", timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=timeout_s
    )


def test_version() -> None:
    done = fastllm("--version")
    assert done.returncode == 0
    assert re.match(r"fastllm \d+\.\d+\.\d+ \(kernels: \w+; CUDA: (yes|no)\)\n", done.stdout)


def test_run_streams_an_answer() -> None:
    done = fastllm("run", "What is 17 + 25?", "--temperature", "0", "--usage")
    assert (done.returncode, done.stdout.count("\n")) == (0, done.stdout.count("\n"))
    assert "42" in done.stdout
    assert done.stdout.endswith("\n")
    assert re.search(r"\d+ prompt tokens \(0 cached\), \d+ generated, [\d.]+ tok/s.*stop, seed \d+", done.stderr)


def test_run_json_raw_and_standard_input() -> None:
    done = fastllm("run", "--json", "--raw", "--temperature", "0", "-n", "5", "-t", "2", "-", stdin="Once upon a time")
    assert done.returncode == 0
    data = json.loads(done.stdout)
    assert len(data["token_ids"]) == data["usage"]["completion_tokens"] == 5
    assert data["finish_reason"] == "length"
    assert data["model"] == "demo"
    assert data["timing"]["total_s"] > 0
    raw = fastllm("run", "Once upon a time", "--raw", "-p", "demo", "--temp", "0", "--max-tokens", "5")
    assert raw.stdout.rstrip("\n") == data["text"].rstrip("\n")
    chat = fastllm("run", "Once upon a time", "--json", "--temperature", "0", "-n", "5")
    assert json.loads(chat.stdout)["usage"]["prompt_tokens"] > data["usage"]["prompt_tokens"], "through the template"


def test_run_seeds_and_stops() -> None:
    texts = {
        fastllm("run", "Tell me a story", "--temperature", "1", "--seed", "3", "-n", "30").stdout for _ in range(2)
    }
    assert len(texts) == 1
    done = fastllm("run", "Once upon a time", "--raw", "--temperature", "0", "--stop", "e", "-n", "max", "--json")
    data = json.loads(done.stdout)
    assert (data["finish_reason"], data["stop"]) == ("stop", "e")
    assert "e" not in data["text"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run"], 2, "PROMPT"),
        (["run", "hi", "--temprature", "1"], 2, "--temprature"),
        (["run", "hi", "--chat", "--raw"], 2, "not allowed"),
        (["run", "hi", "--system", "x", "--raw"], 2, "--raw"),
        (["run", "hi", "--temperature", "-1"], 2, "temperature"),
        (["run", ""], 0, ""),
        (["run", "", "--raw"], 2, "no tokens"),
        (["run", "x " * 5000], 2, "context"),
        (["run", "hi", "-p", "/nowhere"], 1, "/nowhere"),
        (["run", "hi", "--device", "abacus"], 1, "abacus"),
        (["run", "hi", "--dtype", "int3"], 2, "int3"),
        (["info", "/nowhere"], 1, "/nowhere"),
        (["bench", "--batch", "0"], 2, "--batch"),
        (["fly"], 2, "fly"),
        ([], 2, "COMMAND"),
    ],
)
def test_errors_have_codes_and_no_traceback(arguments: list[str], code: int, message: str) -> None:
    done = fastllm(*arguments)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert message in done.stderr
    if code:
        assert "error: " in done.stderr
        assert len(done.stderr.splitlines()) <= 2, "an error is a line or two"


def test_info() -> None:
    done = fastllm("info", "demo")
    assert done.returncode == 0
    assert "architecture" in done.stdout
    assert "Qwen3ForCausalLM" in done.stdout
    data = json.loads(fastllm("info", "demo", "--json", "--tensors").stdout)
    assert data["tensor_count"] == len(data["tensors"])
    assert data["weight_bytes"] == sum(tensor["nbytes"] for tensor in data["tensors"].values())
    assert data["chat_template"] is True
    assert data["runs_here"] is True
    assert data["context_length"] == 1024
    assert data["kv_bytes_per_token"]["bfloat16"] == 2 * data["kv_bytes_per_token"]["fp8"]
    devices = json.loads(fastllm("info", "--devices", "--json").stdout)["devices"]
    assert any(device["name"].startswith("cpu") and device["available"] for device in devices)
    assert "cpu" in fastllm("info", "--devices").stdout
    assert fastllm("info", "-p", "demo").stdout == done.stdout


def test_bench() -> None:
    arguments = ["bench", "--prompt-tokens", "16", "--new-tokens", "4", "--repeat", "1", "--batch", "1", "2"]
    done = fastllm(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n| ") == 3
    rows = json.loads(fastllm(*arguments, "--json").stdout)["rows"]
    assert [row["batch"] for row in rows] == [1, 2]
    assert all(row["prompt_tps"] > 0 and row["decode_tps"] > 0 and row["ttft_ms"] > 0 for row in rows)


def test_chat_from_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "talk.json"
    lines = [
        "What is 2 + 3?",
        "/set temperature=0",
        "/again",
        "/stats",
        f"/save {file}",
        "/nonsense",
        "/help",
        "",
        "/exit",
    ]
    done = fastllm("chat", "--temperature", "0", "-n", "40", stdin="\n".join(lines) + "\n")
    assert done.returncode == 0, done.stderr
    answers = done.stdout.splitlines()
    assert "5" in answers[0]
    assert answers[1] == answers[0]
    assert "tok/s" in answers[2]
    assert "/regenerate" not in done.stdout
    assert "/again" in done.stdout
    assert "there is no /nonsense" in done.stderr
    nodes = json.loads(file.read_text())["nodes"]
    assert [node["role"] for node in nodes] == ["user", "assistant", "assistant"]
    resumed = fastllm("chat", stdin=f"/load {file}\n/set nonsense=1\n/load /nowhere\n")
    assert resumed.returncode == 0
    assert "user: What is 2 + 3?" in resumed.stdout
    assert resumed.stderr.count("error: ") == 2


def read_until(process: subprocess.Popen[str], text: str) -> str:
    assert process.stdout is not None
    seen = ""
    while text not in seen:
        piece = process.stdout.read(1)
        assert piece, f"ended after {seen!r}"
        seen += piece
    return seen


def test_interrupt_stops_run() -> None:
    arguments = ["run", "Tell me a story about a fox.", "--temperature", "1", "-n", "900", "--stop", "@@never@@"]
    process = subprocess.Popen(
        [*COMMAND, *arguments, "--usage", "--raw", "--repetition-penalty", "1.3"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    read_until(process, " ")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert "Traceback" not in err
    assert process.returncode in (0, 130)  # 0: the answer was over by itself
    if process.returncode == 130:
        assert "cancelled" in err
        assert out.endswith("\n")


def test_interrupt_stops_an_answer_and_not_the_chat() -> None:
    process = subprocess.Popen(
        [*COMMAND, "chat", "--temperature", "0"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=0,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write("Tell me a long story about a fox.\n")
    process.stdin.flush()
    read_until(process, " ")
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.stdin.write("What is 2 + 3?\n/exit\n")
    process.stdin.flush()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "5" in out.splitlines()[-1]
    assert "Traceback" not in err


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    with subprocess.Popen(
        [*COMMAND, "run", "Tell me a story about a fox."], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(20) == 141
