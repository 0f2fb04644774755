"""Plant faults in the models of `cases/models`, each of which must be `different`.

`python tests/zoo_faults.py [NAME ..]`: of some models, else of all. A fault is a changed line of one port, which is
compared with the reference alone. Where the size is free, the model is shrunk. Each is a process of its own, since the
modules of the decoder are imported once. Exit code 0: all are found, and nothing is `error`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODELS = Path(__file__).parents[1] / "cases" / "models"

Edit = tuple[str, str]
"""What a line has, and what it has instead."""


@dataclass(frozen=True)
class Fault:
    """One wrong line.

    Attributes:
        model: the case.
        port: the port that is wrong.
        what: what is wrong.
        edits: each must occur in the file.
        file: the file that has the line; empty: that of the case.
    """

    model: str
    port: str
    what: str
    edits: tuple[Edit, ...]
    file: str = ""


SHRUNK: dict[str, tuple[Edit, ...]] = {
    "gpt": (
        (
            '"vocab": 4096, "length": 64, "width": 256, "depth": 12',
            '"vocab": 40, "length": 64, "width": 32, "depth": 2',
        ),
        ("decoder_rows(12", "decoder_rows(2"),
        ("int32[2,16]:4096", "int32[2,8]:40"),
    ),
    "lora_decoder": (('"depth": 12', '"depth": 2'), ("decoder_rows(12", "decoder_rows(2")),
    "vit": (("DEPTH, HEADS, CLASSES = 8, 32, 12,", "DEPTH, HEADS, CLASSES = 8, 32, 2,"),),
    "mixture_of_experts": (("TOP, DEPTH, CLASSES = 16, 32, 4, 2, 4,", "TOP, DEPTH, CLASSES = 16, 32, 4, 2, 2,"),),
}
SHRUNK["gpt_scanned"] = SHRUNK["gpt"]

LINEN, NNX = "_decoder_linen.py", "_decoder_nnx.py"

FAULTS = (
    Fault(
        "actor_critic", "linen", "no stop_gradient",
        (("jax.lax.stop_gradient(returns - value)", "returns - value"),),
    ),
    Fault("actor_critic", "nnx", "another epsilon", (("num_inputs, epsilon=1e-5", "num_inputs, epsilon=1e-6"),)),
    Fault(
        "gpt", "linen", "another epsilon",
        (('1e-5, dtype=self.dtype, name="ln_2"', '1e-6, dtype=self.dtype, name="ln_2"'),), LINEN,
    ),
    Fault("gpt", "linen", "another gelu", (('"c_fc")(x))', '"c_fc")(x), approximate=False)'),), LINEN),
    Fault("gpt", "nnx", "another beta of Adam", (("b2=0.95", "b2=0.999"),), NNX),
    Fault(
        "gpt_scanned", "nnx", "layers in reverse",
        (("out_axes=nnx.Carry)", "out_axes=nnx.Carry, reverse=True)"),), NNX,
    ),
    Fault("gpt_scanned", "linen", "no mask", (("super().__call__(x, mask)", "super().__call__(x, None)"),), LINEN),
    Fault(
        "lora_decoder", "linen", "another scale",
        (("+ x @ lora_a @ lora_b", "+ 2 * (x @ lora_a @ lora_b)"),), LINEN,
    ),
    Fault("lora_decoder", "nnx", "all is trained", (("adamw(0.01), nnx.LoRAParam", "adamw(0.01), nnx.Param"),), NNX),
    Fault(
        "lstm_language_model", "linen", "another activation",
        (("OptimizedLSTMCell(self.width,", "OptimizedLSTMCell(self.width, activation_fn=nn.sigmoid,"),),
    ),
    Fault(
        "lstm_language_model", "nnx", "the other direction",
        (("rngs=rngs)) for", "rngs=rngs), reverse=True, keep_order=True) for"),),
    ),
    Fault(
        "mixture_of_experts", "linen", "gates that do not add up to 1",
        (("gates /= gates.sum(-1, keepdims=True)", "gates = gates * 1.0"),),
    ),
    Fault("mixture_of_experts", "nnx", "one expert for each token", (("probs, TOP)", "probs, 1)"),)),
    Fault(
        "mixture_of_experts", "linen", "balance on the wrong axis",
        (("EXPERTS).mean(0) * probs.mean(0)", "EXPERTS).mean(0) * probs[0]"),),
    ),
    Fault("resnet50", "linen", "another epsilon", (("momentum=0.9, epsilon=1e-5", "momentum=0.9, epsilon=1e-3"),)),
    Fault("resnet50", "nnx", "another momentum", (("momentum=0.9, epsilon=1e-5", "momentum=0.99, epsilon=1e-5"),)),
    Fault("unet", "linen", "other groups", (("nn.GroupNorm(GROUPS, epsilon", "nn.GroupNorm(2, epsilon"),)),
    Fault(
        "unet", "nnx", "skipped values first",
        (("[self.grow[level](x), skips[level]]", "[skips[level], self.grow[level](x)]"),),
    ),
    Fault("vit", "nnx", "another gelu", (("approximate=False", "approximate=True"),)),
    Fault("vit", "linen", "another dropout rate", (("nn.Dropout(0.1", "nn.Dropout(0.2"),)),
    Fault(
        "vq_vae", "linen", "no straight-through gradient",
        (("return x + jax.lax.stop_gradient(quantized - x), commitment", "return quantized, commitment"),),
    ),
    Fault(
        "vq_vae", "nnx", "no zero-debiasing", (("self.hidden / (1 - DECAY ** self.counter[...])", "self.hidden * 1.0"),)
    ),
)  # fmt: skip
"""At least two of each model."""


def write(fault: Fault, folder: Path) -> Path:
    """Write the models with a fault to a folder, and return the file of the case, with two ports left."""
    shutil.copytree(MODELS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    case = folder / f"{fault.model}.py"
    text = replace_all(case.read_text(), SHRUNK.get(fault.model, ()))
    pair = f'models={{"haiku": haiku, "{fault.port}": {fault.port}}}'
    text = replace_all(text, (('models={"haiku": haiku, "linen": linen, "nnx": nnx}', pair),))
    if not fault.file:
        before, _, after = text.partition(f"def {fault.port}(")
        own, end, rest = after.partition("\n    return model, train_step")
        text = f"{before}def {fault.port}({replace_all(own, fault.edits)}{end}{rest}"
    else:
        (folder / fault.file).write_text(replace_all((folder / fault.file).read_text(), fault.edits))
    case.write_text(text)
    return case


def replace_all(text: str, edits: tuple[Edit, ...]) -> str:
    """Replace what must be there."""
    for old, new in edits:
        assert old in text, f"{old!r} does not occur"
        text = text.replace(old, new)
    return text


def judge(fault: Fault) -> tuple[str, str]:
    """The verdict of a model with a fault, and the first reason."""
    with tempfile.TemporaryDirectory() as scratch:
        case = write(fault, Path(scratch) / "models")
        command = [sys.executable, "-m", "equiv", "run", str(case), "--json", "--reports", scratch]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        (found,) = json.loads(done.stdout)["cases"]
    except ValueError:
        return "error", done.stderr.strip()[-300:]
    reasons = (f"{one['check']}: {one['summary']}" for one in found["checks"] if one["grade"] in ("refuted", "error"))
    return found["verdicts"].get(fault.port, "error"), found["problem"] or next(reasons, "")


def main() -> None:
    """Judge every fault, and print a line for each."""
    wrong = 0
    for fault in FAULTS:
        if sys.argv[1:] and fault.model not in sys.argv[1:]:
            continue
        started = time.perf_counter()
        verdict, why = judge(fault)
        wrong += verdict != "different"
        seconds = time.perf_counter() - started
        print(f"{fault.model}, {fault.port}, {fault.what}: {verdict} in {seconds:.0f} s: {why}", flush=True)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
