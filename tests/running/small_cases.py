"""Cases that are quick to run, and such that end the process that runs them."""

from pathlib import Path

SOURCE = '''"""A lesson."""

from equiv.case import Case
from equiv.layers import linear


def old():
    import flax.linen as nn

    return nn.Dense(3)


def new():
    import flax.linen as nn

    {trouble}
    return nn.Dense(3)


CASE = Case(
    guide="none",
    models={{"old": old, "new": new}},
    batch={{"x": "float32[4,2]"}},
    layers=(linear("dense", old="", new=""),),
    steps=1,
)
'''

TROUBLE = {
    "same": "",
    "exits": "import os; os._exit(0)",
    "leaves": "raise SystemExit(0)",
    "interrupts": "raise KeyboardInterrupt",
    "aborts": "import os; os.abort()",
    "hangs": "import time; time.sleep(600)",
    "loops": "import jax\n    with jax.ensure_compile_time_eval():\n"
    "        jax.jit(lambda x: jax.lax.while_loop(lambda n: n >= 0, lambda n: n * 0, x))(1).block_until_ready()",
    "takes_memory": "blocks = []\n    while True:\n        blocks.append(b'x' * 10**7)",
    "is_killed": "import os; os.kill(os.getpid(), 9)",
    "forgets_a_timer": "import os, threading; threading.Timer(1.0, os._exit, (0,)).start()",
    "differs": "return nn.Sequential([nn.Dense(3), nn.relu])",
}
"""What a case does, and the line that does it."""


def write_case(folder: Path, name: str, kind: str = "same") -> Path:
    """Write a case of a kind, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.py"
    path.write_text(SOURCE.format(trouble=TROUBLE[kind]) if kind != "unreadable" else "\x00")
    return path
