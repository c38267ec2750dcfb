"""Runs the real supervisor around the stub engine: ``stub_pod.py MODE ARGUMENTS…``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from llmfleet_runtime.__main__ import parse
from llmfleet_runtime.launch import Launch
from llmfleet_runtime.supervisor import run

MODE = sys.argv[1]


def stub_launch(*_: Any, http_port: int, plugin_environment: dict[str, str], **__: Any) -> Launch:
    stub = Path(__file__).with_name("stub_engine.py")
    return Launch(
        command=(sys.executable, str(stub), str(http_port), MODE),
        environment={**os.environ, **plugin_environment},
    )


os._exit(run(parse(sys.argv[2:]), stub_launch))
