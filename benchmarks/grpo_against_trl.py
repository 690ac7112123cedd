"""CPU time and memory of GRPO steps: steepest against TRL's GRPOTrainer, measured in one run.

    python benchmarks/grpo_against_trl.py --peer-python /path/to/venv-with-trl/bin/python

Both start from the same weights, task, tokenizer and settings, each in a process of its own with one thread, in
turns; the order changes every round. A step is everything between the ends of two optimizer steps. See README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROMPTS, GROUP, LONGEST, STEPS, DROPPED, LR, EPS = 16, 8, 8, 30, 5, 3e-4, 0.2
ALPHABET = ("<pad>", "<eos>", *"0123456789", "+", "=")
FASTER, LEANER = 3.5, 0.5  # what is required: times less CPU a step; growth of memory over the peer's


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python that can import trl==1.16.0")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each library")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "grpo_against_trl.json")
    parser.add_argument("--side", choices=("steepest", "trl"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps((run_steepest if options.side == "steepest" else run_trl)(options.folder)))
        return
    if not options.peer_python:
        parser.error("--peer-python is needed: python -m venv peer && peer/bin/pip install torch==2.13.0 trl==1.16.0")
    found: dict[str, list[dict[str, Any]]] = {"steepest": [], "trl": []}
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        for number in range(options.rounds):
            for side in ("steepest", "trl") if number % 2 == 0 else ("trl", "steepest"):
                found[side].append(measure(sys.executable if side == "steepest" else options.peer_python, side, folder))
                print(
                    f"{side:9s}", " ".join(f"{k} {v:.4g}" for k, v in found[side][-1].items() if isinstance(v, float)), flush=True
                )
    record = summary(found)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps({k: record[k] for k in ("cpu_ratio", "cpu_ratio_per_token", "growth_share", "passed")}))
    sys.exit(0 if record["passed"] else 1)


def measure(python: str, side: str, folder: str) -> dict[str, Any]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([python, __file__, "--side", side, "--folder", folder], env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"the {side} process failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def summary(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    def median(side: str, name: str) -> float:
        return statistics.median(run[name] for run in found[side])

    names = ("cpu_s", "wall_s", "cpu_ms_per_token", "growth_mib", "peak_mib", "tokens")
    medians = {side: {name: round(median(side, name), 4) for name in names} for side in found}
    ours, theirs = medians["steepest"], medians["trl"]
    ratio, share = theirs["cpu_s"] / ours["cpu_s"], ours["growth_mib"] / theirs["growth_mib"]
    return {
        "date": date.today().isoformat(),
        "setting": {
            "prompts": PROMPTS, "group": GROUP, "longest": LONGEST, "steps": STEPS, "dropped": DROPPED, "lr": LR, "threads": 1,
        },
        "median": medians,
        "cpu_ratio": round(ratio, 3),
        "cpu_ratio_per_token": round(theirs["cpu_ms_per_token"] / ours["cpu_ms_per_token"], 3),
        "growth_share": round(share, 3),
        "required": {"cpu_ratio": FASTER, "growth_share": LEANER},
        "passed": ratio >= FASTER and share <= LEANER,
        "runs": found,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ the same for both


def prepare(folder: str) -> None:
    """The weights and the tokenizer that both sides read."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(ALPHABET)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    words.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left")
    tokenizer.save_pretrained(Path(folder, "tokenizer"))  # apart: beside Qwen2 weights it would be read as Qwen2's
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(ALPHABET), hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64, tie_word_embeddings=True,
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)


def reward(a: int, b: int, said: list[int]) -> float:
    """The share of the sum's digits that stand where they should, less a tenth for each token too many or too few."""
    right = [ALPHABET.index(digit) for digit in str(a + b)]
    answer = said[: said.index(1)] if 1 in said else said
    hits = sum(x == y for x, y in zip(answer, right, strict=False))
    return hits / len(right) - 0.1 * abs(len(answer) - len(right))


class Meter:
    """CPU seconds, wall seconds and answer tokens of every step; growth of resident memory since it was made."""

    def __init__(self) -> None:
        self.cpu, self.wall, self.tokens = [time.process_time()], [time.perf_counter()], [0.0]
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
        self.start = self.resident("VmRSS")

    @staticmethod
    def resident(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) / 1024

    def step(self, tokens: float) -> None:
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())
        self.tokens.append(tokens)

    def report(self, score: float, packages: tuple[str, ...]) -> dict[str, Any]:
        cpu, wall = ([b - a for a, b in itertools.pairwise(x)][DROPPED:] for x in (self.cpu, self.wall))
        tokens = self.tokens[1 + DROPPED :]
        peak = self.resident("VmHWM")
        return {
            "cpu_s": statistics.median(cpu),
            "wall_s": statistics.median(wall),
            "tokens": statistics.mean(tokens),
            "cpu_ms_per_token": 1e3 * sum(cpu) / sum(tokens),
            "growth_mib": peak - self.start,
            "peak_mib": peak,
            "final_reward": score,
            "versions": {name: version(name) for name in packages},
        }


# -------------------------------------------------------------------------------------------------- the sides


def run_steepest(folder: str) -> dict[str, Any]:
    import torch
    from transformers import PreTrainedTokenizerFast

    from steepest.collectors.generate import generate
    from steepest.core import Language, Prompts, begin, train
    from steepest.credit import group_relative
    from steepest.engines.policy_gradient import policy_gradient
    from steepest.losses import clip
    from steepest.models.build import actor_state

    torch.set_num_threads(1)

    class Sums(Language):
        tokenizer, max_new = PreTrainedTokenizerFast.from_pretrained(Path(folder, "tokenizer")), LONGEST

        def prompts(self, count: int, generator: torch.Generator) -> Prompts:
            key = torch.randint(100, (count, 2), generator=generator) @ torch.tensor([100, 1])
            ids = torch.tensor(self.tokenizer([f"{k // 100:02d}+{k % 100:02d}=" for k in key.tolist()])["input_ids"])
            return Prompts(ids, torch.ones_like(ids), key)

        def score(self, prompts: Prompts, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            rows = zip(prompts.key.tolist(), tokens.tolist(), mask.sum(1).int().tolist(), strict=True)
            return torch.tensor([reward(k // 100, k % 100, said[:n]) for k, said, n in rows])

        def config(self) -> Any: ...

        def evaluate(self, policy: Any, rng: Any) -> dict[str, float]: ...  # type: ignore[empty-body]

    grpo = policy_gradient(
        init=lambda problem, rng: actor_state(problem, rng, lr=LR, model=folder),
        collect=generate(prompts=PROMPTS, group=GROUP),
        credit=lambda state, batch: group_relative(batch.score, batch.key)[:, None],
        loss=clip(low=EPS, high=EPS),
    )
    problem = Sums()
    state = begin(grpo, problem)
    meter, scores = Meter(), []
    for record in train(grpo, problem, steps=STEPS, state=state):
        meter.step(record.metrics["length"] * PROMPTS * GROUP)
        scores.append(record.metrics["score"])
    return meter.report(statistics.mean(scores[-5:]), ("torch", "transformers", "steepest"))


def run_trl(folder: str) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    torch.set_num_threads(1)
    draw = torch.randint(100, (PROMPTS * STEPS, 2), generator=torch.Generator().manual_seed(0)).tolist()
    data = Dataset.from_list([{"prompt": f"{a:02d}+{b:02d}=", "a": a, "b": b} for a, b in draw])
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    seen: dict[str, Any] = {"tokens": 0, "scores": []}

    def correct(completion_ids: list[list[int]], a: list[int], b: list[int], **_: Any) -> list[float]:
        seen["tokens"] = sum(map(len, completion_ids))
        out = [reward(*row) for row in zip(a, b, completion_ids, strict=True)]
        seen["scores"].append(statistics.mean(out))
        return out

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            seen["meter"] = Meter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen["meter"].step(seen["tokens"])

    with tempfile.TemporaryDirectory() as out:
        config = GRPOConfig(
            output_dir=out, use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False, max_steps=STEPS, learning_rate=LR,
            lr_scheduler_type="constant", per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
            max_completion_length=LONGEST, beta=0.0, epsilon=EPS, temperature=1.0, loss_type="dapo", num_iterations=1,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, seed=0, adam_epsilon=1e-5,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model, reward_funcs=correct, args=config, train_dataset=data, callbacks=[Clock()],
            processing_class=PreTrainedTokenizerFast.from_pretrained(Path(folder, "tokenizer"), padding_side="left"),
        )  # fmt: skip
        before = trainer.model.num_parameters()
        trainer.train()
    packages = ("torch", "transformers", "accelerate", "trl")
    return {**seen["meter"].report(statistics.mean(seen["scores"][-5:]), packages), "parameters": before}


if __name__ == "__main__":
    main()
