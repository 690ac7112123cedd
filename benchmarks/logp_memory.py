"""Peak memory of one update with a large vocabulary: log-probabilities in pieces against all logits at once.

    python benchmarks/logp_memory.py

A text of 2,048 decided tokens over 150,000 words, its log-probabilities and entropies, and the gradient of a sum of both. Each way
runs in a process of its own; what is measured is the growth of its peak resident memory from just before the forward pass. The
gradients, projected on a fixed direction and as a whole, must agree. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

WORDS, LONGEST, PROMPT, WIDTH = 150_000, 2048, 16, 64
LEANER, CLOSE = 4.0, 1e-5  # what is required: times less growth than the naive way; relative difference of the gradients
KINDS = ("qwen2", "gpt2")  # of the fast families; by its own forward pass
WAYS = ("naive", "pieces")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "logp_memory.json")
    parser.add_argument("--arm", nargs=3, metavar=("KIND", "WAY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(*options.arm)))
        return
    import torch

    record: dict[str, Any] = {
        "date": date.today().isoformat(),
        "setting": {"words": WORDS, "decisions": LONGEST, "prompt": PROMPT, "hidden": WIDTH, "dtype": "float32", "threads": 1},
        "required": {"times": LEANER, "difference": CLOSE},
        "versions": {name: version(name) for name in ("torch", "transformers", "steepest")},
        "runs": {},
    }
    for kind in KINDS:
        with tempfile.TemporaryDirectory() as folder:
            found = {way: process(kind, way, folder) for way in WAYS}
            naive, pieces = (torch.load(Path(folder, way)) for way in WAYS)
        found["times"] = round(found["naive"]["growth_mib"] / found["pieces"]["growth_mib"], 2)
        found["difference"] = float((naive - pieces).norm() / naive.norm())
        record["runs"][kind] = found
        print(kind, json.dumps(found), flush=True)
    record["passed"] = all(run["times"] >= LEANER and run["difference"] < CLOSE for run in record["runs"].values())
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    sys.exit(0 if record["passed"] else 1)


def process(kind: str, way: str, folder: str) -> dict[str, float]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    arm = [sys.executable, __file__, "--arm", kind, way, folder]
    done = subprocess.run(arm, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{kind}, {way} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(kind: str, way: str, folder: str) -> dict[str, float]:
    """The growth in MiB and the CPU seconds of one update; its gradient goes to a file of the folder."""
    import time

    import torch
    from grpo_against_trl import Meter
    from transformers import AutoModelForCausalLM, GPT2Config, Qwen2Config

    from steepest.models.language import LanguageModel

    torch.set_num_threads(1)
    room = PROMPT + LONGEST
    if kind == "qwen2":
        config: Any = Qwen2Config(
            vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=2 * WIDTH, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, max_position_embeddings=room, tie_word_embeddings=True,
        )  # fmt: skip
    else:
        config = GPT2Config(vocab_size=WORDS, n_embd=WIDTH, n_layer=1, n_head=2, n_positions=room, bos_token_id=1, eos_token_id=1)
    torch.manual_seed(0)
    policy = LanguageModel(AutoModelForCausalLM.from_config(config), eos=1, pad=0, max_new=LONGEST)
    draw = torch.Generator().manual_seed(1)
    ids, action = (torch.randint(2, WORDS, (1, n), generator=draw) for n in (PROMPT, LONGEST))
    obs, mask = {"ids": ids, "mask": torch.ones_like(ids)}, torch.ones(1, LONGEST)
    few = {"ids": ids[:, :2], "mask": obs["mask"][:, :2]}, action[:, :2], mask[:, :2]
    policy.logp(*few).sum().backward()  # what is loaded when it is first used
    policy.zero_grad(set_to_none=True)
    meter, cpu = Meter(), time.process_time()
    if way == "naive":
        whole = policy.logits(obs, action).log_softmax(-1)
        logp, entropy = whole.gather(2, action[..., None]).squeeze(2), -(whole.exp() * whole).sum(-1)
        del whole
    else:
        logp, entropy = policy.logp_entropy(obs, action, mask)
    (logp.sum() + 0.1 * entropy.sum()).backward()
    found = {"growth_mib": round(meter.resident("VmHWM") - meter.start, 1), "cpu_s": round(time.process_time() - cpu, 2)}
    torch.save(torch.cat([p.grad.flatten() for p in policy.parameters()]), Path(folder, way))
    return found


if __name__ == "__main__":
    main()
