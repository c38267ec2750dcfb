"""One supervised engine on loopback ports, for tests."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOKEN = "router-token"
READY_WITHIN_SECONDS = 240


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def copy_models(folder: Path) -> Path:
    """A writable copy of the tiny models, which are made once and kept in the cache."""
    cache = Path(os.environ.get("LLMFLEET_CACHE", Path.home() / ".cache" / "llmfleet"))
    made = Path(os.environ.get("LLMFLEET_TEST_MODELS", cache / "test-models"))
    if not (made / "tiny-llama-v2" / "config.json").exists():
        maker = ROOT / "hack" / "models" / "make_tiny_models.py"
        subprocess.run([sys.executable, str(maker), str(made)], check=True)
    return Path(shutil.copytree(made, folder, dirs_exist_ok=True))


def install_plugins(folder: Path) -> Path:
    """Makes the checkout's plugins visible from this folder, as installing the wheel would."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    info = folder / "llmfleet_runtime_checkout-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: llmfleet-runtime-checkout\nVersion: 0\n"
    )
    lines = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in entries.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


class Pod:
    """A supervisor with vLLM under it."""

    def __init__(self, folder: Path, models: Path, installed: Path, engine: dict[str, Any]) -> None:
        self.http, self.health = free_port(), free_port()
        self.words_file = folder / "termination-log"
        self.log = folder / "log"
        self.output = self.log.open("wb")
        claims = folder / "claims"
        claims.mkdir()
        (claims / "claim").symlink_to(models)
        (folder / "token").write_text(TOKEN)
        model = engine.pop("model", "tiny-llama")
        engine.setdefault("maxModelLen", 1024)
        engine.setdefault("extraArgs", ["--kv-cache-memory-bytes=67108864"])
        config = {
            "schema": 1,
            "revision": "5d41c0ffee",
            "model": {
                "source": f"pvc://claim/{model}",
                "servedName": "tiny",
                "aliases": ["alias"],
            },
            "engine": engine,
            "drainTimeoutSeconds": 90,
        }
        (folder / "runtime.json").write_text(json.dumps(config))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "runtime"), str(installed)]),
            "LLMFLEET_DEVICE": "cpu",
        }
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "llmfleet_runtime",
                f"--config={folder / 'runtime.json'}",
                f"--models-root={claims}",
                f"--token-file={folder / 'token'}",
                f"--termination-log={self.words_file}",
                "--host=127.0.0.1",
                f"--http-port={self.http}",
                f"--health-port={self.health}",
            ],
            env=environment,
            stdout=self.output,
            stderr=subprocess.STDOUT,
        )

    def ask(
        self,
        path: str,
        body: object = None,
        *,
        port: int | None = None,
        token: str = TOKEN,
        **headers: str,
    ) -> tuple[int, str]:
        """Status and text; POST when there is a body (bytes are sent as they are)."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port or self.http}{path}",
            data,
            {"content-type": "application/json", "x-llmfleet-token": token, **headers},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def probe(self, path: str) -> tuple[int, str]:
        """The health port; status 0 while nothing listens."""
        try:
            return self.ask(path, port=self.health)
        except OSError:
            return 0, ""

    def until_ready(self) -> float:
        """Seconds from start to Ready."""
        deadline = time.monotonic() + READY_WITHIN_SECONDS
        while self.probe("/ready")[0] != 200:
            assert self.process.poll() is None, self.log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")[-4000:]
            time.sleep(0.2)
        return time.monotonic() - self.started

    def complete(self, prompt: str, max_tokens: int = 40) -> str:
        status, text = self.ask(
            "/v1/completions",
            {"model": "tiny", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0},
        )
        assert status == 200, text
        return str(json.loads(text)["choices"][0]["text"])

    def complete_all(self, prompts: list[str]) -> list[str]:
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(self.complete, prompts))

    def metric(self, name: str) -> float:
        """Sum of a metric's series; a missing metric is a failure."""
        page = self.probe("/metrics")[1]
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? ([0-9.e+-]+)$", page, re.MULTILINE)
        assert found, f"{name} is not on the metrics page"
        return sum(map(float, found))

    def engine_core(self) -> int:
        """Process id of vLLM's engine core below this pod."""
        found = [pid for pid in descendants(self.process.pid) if b"EngineCore" in command_line(pid)]
        assert found, "no engine core process"
        return found[0]

    @property
    def words(self) -> dict[str, Any]:
        return dict(json.loads(self.words_file.read_text()))

    def close(self) -> None:
        """Ends it without a drain."""
        left = descendants(self.process.pid)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.output.close()


def command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def descendants(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    children = [int(word) for word in text.split()]
    return children + [each for child in children for each in descendants(child)]
