"""Measures one training step of bertjax and of PyTorch on the CPU: f32, with dropout and optimizer.

python benchmarks/train_step.py [--sizes=tiny,base] [--rounds=5] [--seconds=6]

The competitors are the unmodified BertForPreTraining of `transformers`, eager and sdpa (its masked-LM head scores every
position), with torch.optim.AdamW and gradient clipping. bertjax runs the step of bertjax/trainer/step.py, which scores
only the masked positions. All use the same batch and all cores, in separate processes that alternate, with equal time
per round; the table shows the median step of all rounds. All use huge pages, as the scripts in launch/ do;
GLIBC_TUNABLES= (empty) disables them.
"""

import argparse
import json
import os
import subprocess
import sys
import time

import numpy as np

# Layers, hidden size, heads, intermediate size, rows of 128 tokens.
SIZES = {"tiny": (2, 128, 2, 512, 32), "base": (12, 768, 12, 3072, 8)}
LENGTH, PREDICTIONS, VOCABULARY = 128, 20, 30522
RUNNERS = ("bertjax", "eager", "sdpa")


def main() -> None:
    """Prints the table, or with --child serves one competitor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="tiny,base")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="Seconds of timing per competitor and round.")
    parser.add_argument("--child", nargs=2, metavar=("RUNNER", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        serve(*arguments.child, arguments.seconds)
        return
    print(
        f"{os.cpu_count()} cores, length {LENGTH}, f32, dropout 0.1; median of the steps of {arguments.rounds} rounds"
    )
    for size in arguments.sizes.split(","):
        compare(size, arguments.rounds, arguments.seconds)


def compare(size: str, rounds: int, seconds: float) -> None:
    """Times all competitors alternately and prints their lines."""
    children = {runner: Child(runner, size, seconds) for runner in RUNNERS}
    times: dict[str, list[float]] = {runner: [] for runner in RUNNERS}
    for _ in range(rounds):
        for runner, child in children.items():
            times[runner] += child.round()
    medians = {runner: float(np.median(values)) for runner, values in times.items()}
    fastest = min(medians["eager"], medians["sdpa"])
    for runner in RUNNERS:
        tokens = SIZES[size][4] * LENGTH / medians[runner]
        print(
            f"{size:5} {runner:8} {medians[runner] * 1e3:9.1f} ms ({len(times[runner]):3} steps, fastest "
            f"{min(times[runner]) * 1e3:8.1f}) {tokens:9,.0f} tokens/s {fastest / medians[runner]:6.2f} x",
            flush=True,
        )
    for child in children.values():
        child.close()


class Child:
    """A competitor in a separate process, idle between its rounds."""

    def __init__(self, runner: str, size: str, seconds: float) -> None:
        command = [sys.executable, __file__, f"--seconds={seconds}", "--child", runner, size]
        env = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"} | os.environ
        self._process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._process.stdout.readline()  # ready

    def round(self) -> list[float]:
        """Runs one round and returns the seconds of each step."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def serve(runner: str, size: str, seconds: float) -> None:
    """Runs a round for each line of stdin and prints the times of its steps."""
    step = (bertjax_step if runner == "bertjax" else lambda size: torch_step(size, runner))(size)
    for _ in range(2):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        step()  # not timed: warms up caches and clock
        times = []
        while sum(times) < seconds or len(times) < 2:
            before = time.perf_counter()
            step()
            times.append(time.perf_counter() - before)
        print(json.dumps(times), flush=True)


def make_batch(rows: int) -> dict[str, np.ndarray]:
    """A batch like those of the input pipeline, with padding in a quarter of the rows."""
    rng = np.random.default_rng(0)
    mask = np.ones((rows, LENGTH), np.int32)
    mask[::4, 100:] = 0
    input_ids = rng.integers(999, VOCABULARY, (rows, LENGTH)).astype(np.int32) * mask
    positions = np.stack([np.sort(rng.choice(100, PREDICTIONS, replace=False)) for _ in range(rows)]).astype(np.int32)
    return {
        "input_ids": input_ids,
        "token_type_ids": (np.arange(LENGTH) > 60).astype(np.int32) * mask,
        "attention_mask": mask,
        "masked_lm_positions": positions,
        "masked_lm_ids": np.take_along_axis(input_ids, positions, 1),
        "masked_lm_weights": np.ones(positions.shape, np.float32),
        "next_sentence_labels": rng.integers(0, 2, rows).astype(np.int32),
    }


def bertjax_step(size: str):
    """Returns a function that runs one step and waits for its loss."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from bertjax.cli import tune_cpu_malloc

    tune_cpu_malloc()  # as in the command
    from bertjax.config.layout import LayoutConfig, MeshConfig
    from bertjax.config.model import ModelConfig
    from bertjax.config.pretraining import Config
    from bertjax.parallel.mesh import make_mesh, put_batch
    from bertjax.pretraining import build
    from bertjax.trainer.step import initial_state, make_init, make_train_step

    layers, width, heads, inner, rows = SIZES[size]
    model = ModelConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=inner)
    config = Config(model=model, dtype="float32", layout=LayoutConfig(unroll=layers))
    objective = build.make_objective(config)
    optimizer, schedule = build.make_optimizer(config)
    mesh = make_mesh(MeshConfig())
    batch = make_batch(rows)
    train_step = make_train_step(objective, optimizer, schedule, mesh, seed=0)
    state = make_init(initial_state(objective, optimizer, batch, seed=0), mesh)()

    def step() -> None:
        nonlocal state
        state, metrics = train_step(state, put_batch(batch, mesh))
        float(metrics["train/loss"])

    return step


def torch_step(size: str, attention: str):
    """Returns the same function for `transformers`."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    layers, width, heads, inner, rows = SIZES[size]
    config = BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads, intermediate_size=inner)
    config._attn_implementation = attention
    model = BertForPreTraining(config).train()
    assert model.config._attn_implementation == attention
    batch = make_batch(rows)
    labels = np.full((rows, LENGTH), -100)
    np.put_along_axis(labels, batch["masked_lm_positions"], batch["masked_lm_ids"], 1)
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    inputs |= {"labels": labels, "next_sentence_label": batch["next_sentence_labels"]}
    inputs = {name: torch.tensor(value, dtype=torch.long) for name, value in inputs.items()}
    plain = [p for p in model.parameters() if p.ndim == 1]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, eps=1e-6)

    def step() -> None:
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


if __name__ == "__main__":
    main()
