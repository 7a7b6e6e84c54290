"""Measures one training step of bertjax and of PyTorch on a GPU: tokens/s, MFU, and the bound of bertjax's step.

python benchmarks/train_step_gpu.py [--sizes=base,large] [--lengths=128,512] [--tokens=16384]
  [--attention_dropout=0.1,0]

The competitor is the unmodified BertForPreTraining of `transformers` (its masked-LM head scores every position), with
torch.compile, sdpa attention, bfloat16 by autocast, the fused torch.optim.AdamW and gradient clipping. bertjax runs the
step of bertjax/trainer/step.py, which scores only the masked positions. MFU is based on the model's FLOPs for both
(bertjax/model/flops.py). Parameters are float32, dropout outside attention is 0.1, batches are random and already on
the device. Each case is a separate process; they run in sequence.

The bound is the longer of two times: the program's matrix products at the peak of the device, or the bytes that its
instructions move at the bandwidth of the memory. Without a GPU the script runs a tiny model on the CPU in float32,
without torch.compile and without peaks.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

SIZES = {  # layers, hidden size, heads, intermediate size
    "tiny": (2, 128, 2, 512),
    "base": (12, 768, 12, 3072),
    "large": (24, 1024, 16, 4096),
}
VOCABULARY = 30522
# Memory bandwidth in bytes/s, from the data sheets.
BANDWIDTH = {
    "NVIDIA A100-SXM4-40GB": 1.555e12,
    "NVIDIA A100-SXM4-80GB": 2.039e12,
    "NVIDIA H100 80GB HBM3": 3.35e12,
    "NVIDIA H200": 4.8e12,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A case: one line per competitor."""

    size: str
    length: int
    rows: int
    dropout: float  # of attention probabilities
    gpu: bool
    seconds: float  # of timing
    layout: dict[str, Any]  # fields of bertjax's LayoutConfig


def main() -> None:
    """Prints the table, or with --child measures one of its lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="Sizes out of tiny, base, large; default: base,large on a GPU, tiny on a CPU.")
    parser.add_argument("--lengths", help="Sequence lengths; default: 128,512 on a GPU, 128 on a CPU.")
    parser.add_argument("--tokens", type=int, help="Tokens per step; default: 16384 on a GPU, 1024 on a CPU.")
    parser.add_argument(
        "--attention_dropout",
        help="Dropout of attention probabilities, which fused attention lacks; default: 0.1,0 on a GPU, 0.1 on a CPU.",
    )
    parser.add_argument("--seconds", type=float, help="Seconds of timing per line; default: 10 on a GPU, 3 on a CPU.")
    parser.add_argument("--remat", default="none", help="layout.remat of bertjax.")
    parser.add_argument("--unroll", type=int, default=1, help="layout.unroll of bertjax.")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child = json.loads(arguments.child)
        print(json.dumps(measure(child["runner"], Case(**child["case"]))))
        return
    gpu = has_gpu()
    tokens = arguments.tokens or (16384 if gpu else 1024)
    seconds = arguments.seconds or (10.0 if gpu else 3.0)
    print(f"{'bfloat16' if gpu else 'float32, on the CPU'}, {tokens:,} tokens a step", flush=True)
    for size in (arguments.sizes or ("base,large" if gpu else "tiny")).split(","):
        for length in map(int, (arguments.lengths or ("128,512" if gpu else "128")).split(",")):
            for dropout in map(float, (arguments.attention_dropout or ("0.1,0" if gpu else "0.1")).split(",")):
                layout = {"remat": arguments.remat, "unroll": arguments.unroll}
                compare(Case(size, length, tokens // length, dropout, gpu, seconds, layout))


def has_gpu() -> bool:
    """Whether JAX has a GPU, by a separate process, which then releases its memory."""
    code = "import jax; print(jax.default_backend())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "gpu"


def compare(case: Case) -> None:
    """Measures bertjax and its competitor, and prints their lines."""
    for runner in ("bertjax", "torch"):
        child = json.dumps({"runner": runner, "case": dataclasses.asdict(case)})
        result = subprocess.run([sys.executable, __file__, "--child", child], stdout=subprocess.PIPE, text=True)
        name = f"{case.size:5} {case.length:3} attention dropout {case.dropout:<4g}{runner:8}"
        if result.returncode:  # its error is printed above
            print(f"{name} failed", flush=True)
            continue
        measured = json.loads(result.stdout.splitlines()[-1])
        step = measured["step"]
        mfu = f" MFU {measured['model_flops'] / step / measured['peak']:6.1%}" if measured["peak"] else ""
        speed = f"{step * 1e3:9.2f} ms {case.rows * case.length / step:11,.0f} tokens/s{mfu}"
        print(f"{name} {speed}  {measured['attention']}{bound(measured)}", flush=True)


def bound(measured: dict[str, Any]) -> str:
    """The bound of a step, as text; "" if unknown."""
    if "program_flops" not in measured:
        return ""
    flops, moved = measured["program_flops"], measured["moved"]
    text = f"; {flops / 1e12:.3g} TFLOP, {moved / 1e9:.3g} GB"
    if not (measured["peak"] and measured["bandwidth"]):
        return text
    times = {"compute": flops / measured["peak"], "memory": moved / measured["bandwidth"]}
    slowest = max(times, key=times.get)
    parts = ", ".join(f"{name} {1e3 * seconds:.2f} ms" for name, seconds in times.items())
    return f"{text}: at least {parts}; bound by {slowest}, {times[slowest] / measured['step']:.0%} of it reached"


def measure(runner: str, case: Case) -> dict[str, Any]:
    """The median time of a step and further properties."""
    step, properties = (bertjax_step if runner == "bertjax" else torch_step)(case)
    for _ in range(3):
        float(step())
    before = time.perf_counter()
    float(step())
    group = max(1, round(0.5 / (time.perf_counter() - before)))  # steps between two synchronizations
    times: list[float] = []
    while sum(times) * group < case.seconds or len(times) < 3:
        before = time.perf_counter()
        for _ in range(group):
            loss = step()
        float(loss)
        times.append((time.perf_counter() - before) / group)
    return properties | costs(case) | {"step": float(np.median(times))}


def model_config(size: str, dropout: float) -> Any:
    from bertjax.config.model import ModelConfig

    layers, width, heads, inner = SIZES[size]
    return ModelConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        attention_probs_dropout_prob=dropout,
    )


def costs(case: Case) -> dict[str, Any]:
    """The model's FLOPs, and the peaks of the device."""
    import jax

    from bertjax.config.data import MaskingConfig
    from bertjax.model.flops import training_flops
    from bertjax.parallel.hardware import peak_flops

    predictions = MaskingConfig().predictions(case.length)
    model = model_config(case.size, case.dropout)
    return {
        "model_flops": case.rows * training_flops(model, case.length, predictions),
        "peak": peak_flops(jax.devices()[:1]),
        "bandwidth": BANDWIDTH.get(jax.devices()[0].device_kind),
    }


def make_batch(rows: int, length: int) -> dict[str, np.ndarray]:
    """A batch like those of the input pipeline, with padding in a quarter of the rows."""
    from bertjax.config.data import MaskingConfig

    rng = np.random.default_rng(0)
    mask = np.ones((rows, length), np.int32)
    shortest = length * 3 // 4
    mask[::4, shortest:] = 0
    input_ids = rng.integers(999, VOCABULARY, (rows, length)).astype(np.int32) * mask
    predictions = MaskingConfig().predictions(length)
    chosen = [np.sort(rng.choice(shortest, predictions, replace=False)) for _ in range(rows)]
    positions = np.stack(chosen).astype(np.int32)
    return {
        "input_ids": input_ids,
        "token_type_ids": (np.arange(length) > length // 2).astype(np.int32) * mask,
        "attention_mask": mask,
        "masked_lm_positions": positions,
        "masked_lm_ids": np.take_along_axis(input_ids, positions, 1),
        "masked_lm_weights": np.ones(positions.shape, np.float32),
        "next_sentence_labels": rng.integers(0, 2, rows).astype(np.int32),
    }


def bertjax_step(case: Case) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Returns a function that starts one step and returns its loss, and properties of the program."""
    import jax

    from bertjax.config.layout import LayoutConfig, MeshConfig
    from bertjax.config.pretraining import Config, Phase
    from bertjax.parallel.mesh import make_mesh, put_batch
    from bertjax.planning import hlo
    from bertjax.planning.step import matmul_flops
    from bertjax.planning.traffic import traffic
    from bertjax.pretraining import build
    from bertjax.trainer.step import initial_state, make_init, make_train_step

    phase = Phase(steps=1, length=case.length, batch=case.rows)
    layout = LayoutConfig(**case.layout)
    config = Config(model=model_config(case.size, case.dropout), layout=layout, phases=(phase,))
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    objective = build.make_objective(config)
    optimizer, schedule = build.make_optimizer(config)
    batch = put_batch(make_batch(case.rows, case.length), mesh)
    state = make_init(initial_state(objective, optimizer, batch, seed=0), mesh)()
    traced = make_train_step(objective, optimizer, schedule, mesh, seed=0).trace(state, batch)
    compiled = traced.lower().compile()

    def step() -> jax.Array:
        nonlocal state
        state, metrics = compiled(state, batch)
        return metrics["train/loss"]

    return step, {
        "attention": build.attention_impl(config, phase, mesh),
        "program_flops": matmul_flops(traced.jaxpr.jaxpr),
        "moved": traffic(hlo.parse(compiled.as_text())),
    }


def torch_step(case: Case) -> tuple[Callable[[], Any], dict[str, Any]]:
    """Returns the same for `transformers`."""
    # JAX, which later names the device, must not allocate its memory.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import torch
    from transformers import BertConfig, BertForPreTraining

    torch.manual_seed(0)
    if case.gpu:
        torch.set_float32_matmul_precision("high")
    device = "cuda" if case.gpu else "cpu"
    layers, width, heads, inner = SIZES[case.size]
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=inner,
        attention_probs_dropout_prob=case.dropout,
    )
    config._attn_implementation = "sdpa"
    model = BertForPreTraining(config).to(device).train()
    assert model.config._attn_implementation == "sdpa"
    run = torch.compile(model) if case.gpu else model
    batch = make_batch(case.rows, case.length)
    labels = np.full((case.rows, case.length), -100)
    np.put_along_axis(labels, batch["masked_lm_positions"], batch["masked_lm_ids"], 1)
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    inputs |= {"labels": labels, "next_sentence_label": batch["next_sentence_labels"]}
    inputs = {name: torch.tensor(value, dtype=torch.long, device=device) for name, value in inputs.items()}
    plain = [p for p in model.parameters() if p.ndim == 1]
    decayed = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, eps=1e-6, fused=True)

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=case.gpu):
            loss = run(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.detach()

    return step, {"attention": "sdpa, compiled" if case.gpu else "sdpa"}


if __name__ == "__main__":
    main()
