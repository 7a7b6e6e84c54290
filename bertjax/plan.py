"""Plans a run: compiles its train steps for devices that need not be present; reports memory, FLOPs, traffic and MFU.

python -m bertjax.plan --config=configs/large.py --topology=v5e:16x16 [--fit] [--json] [--config.KEY=VALUE …]

Topologies: v4:4x4x8, v5e:4x4, v5p:4x4x4, v6e:16x16 etc., 2*v5e:16x16 for two slices; cpu:8; gpu for the local GPUs. All
TPU topologies need `pip install -e '.[tpu]'`, which installs the TPU compiler. The exit code is 1 if a phase does not
fit, else 0. The memory of cpu:8 and gpu is unknown, so for them exit code 0 does not mean that every phase fits.
"""

import dataclasses
import json
import logging
import math
import sys
from typing import TYPE_CHECKING

from absl import flags

from bertjax import cli
from bertjax.errors import UserError

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from bertjax.config.pretraining import Config
    from bertjax.planning.step import DoesNotFit, Plan
    from bertjax.planning.topology import Topology

_CONFIG = cli.define_config_flag()
_TOPOLOGY = flags.DEFINE_string("topology", None, "Devices to plan for, e.g. v5e:16x16 or cpu:8.")
_PHASE = flags.DEFINE_integer("phase", 0, "Number of the phase to plan, from 1; 0: all phases.")
_FIT = flags.DEFINE_bool("fit", False, "Also search for a batch within an eighth of the largest that fits.")
_JSON = flags.DEFINE_bool("json", False, "Whether to print one JSON object per phase instead of text.")
_GIB = 2**30


def main(args: list[str]) -> None:
    """Plans the phases that the flags select."""
    values = cli.config_value(_CONFIG)
    if args or values is None or _TOPOLOGY.value is None:
        usage = "python -m bertjax.plan --config=FILE --topology=v5e:16x16"
        raise cli.usage_error(args, {"--config": values, "--topology": _TOPOLOGY.value}, usage)
    from bertjax.config.parse import from_config_dict
    from bertjax.config.pretraining import DistillationConfig

    config = from_config_dict(values)
    if not 0 <= _PHASE.value <= len(config.phases):
        raise UserError(f"--phase={_PHASE.value}: no such phase; the config has phases 1 to {len(config.phases)}")
    if not config.model.vocab_size:
        raise UserError(
            "config.model.vocab_size is 0, which takes it from a corpus; give a size to plan with, e.g. "
            "--config.model.vocab_size=30522"
        )
    if config.distillation.teacher:
        _LOG.info("planning without the teacher: its parameters, outputs and time are not included")
        config = dataclasses.replace(config, distillation=DistillationConfig())
    cli.silence_native()
    from bertjax.parallel.mesh import compute_dtype
    from bertjax.planning import topology

    devices = topology.describe(_TOPOLOGY.value)
    dtype = compute_dtype(config.dtype, devices.devices[0].platform)
    config = dataclasses.replace(config, dtype=dtype.name)
    indices = [_PHASE.value - 1] if _PHASE.value else range(len(config.phases))
    if not all([_plan_phase(config, index, devices) for index in indices]):
        sys.exit(1)


def _plan_phase(config: "Config", index: int, devices: "Topology") -> bool:
    """Plans and prints a phase; returns False if it does not fit, True if it does or if the limit is unknown."""
    from bertjax.planning import step

    phase = config.phases[index]
    _LOG.info(f"compiling phase {index + 1} of {len(config.phases)}: {phase.batch} × {phase.length} on {devices.name}")
    try:
        plan = step.plan(config, phase, devices)
        _show(_values(index, plan), _text(index, plan, devices))
    except step.DoesNotFit as error:
        plan = None
        values = {"phase": index + 1, "fits": False, "used": error.used, "limit": error.limit}
        _show(values, _misfit_text(config, index, error, len(devices.devices)))
    if _FIT.value:
        largest = step.largest_batch(config, phase, devices)
        text = f"a batch of {largest} fits, within an eighth of the largest that does" if largest else "no batch fits"
        _show({"phase": index + 1, "largest_batch": largest}, f"  {text}")
    return plan is not None


def _show(values: dict[str, object], text: str) -> None:
    print(json.dumps(values) if _JSON.value else text, flush=True)


def _misfit_text(config: "Config", index: int, error: "DoesNotFit", devices: int) -> str:
    """Returns the result of a phase that does not fit, with settings to try that batch and devices allow."""
    layout, batch = config.layout, config.phases[index].batch
    remedies = []
    if layout.remat != "full":
        remedies.append(f"--config.layout.remat={'bert' if layout.remat == 'none' else 'full'}")
    if batch % (2 * layout.accumulation * devices) == 0:
        remedies.append(f"--config.layout.accumulation={2 * layout.accumulation}")
    if config.mesh.fsdp == 1 and devices % 2 == 0:
        remedies.append(f"--config.mesh.fsdp={math.gcd(devices, 8)}")
    remedies.append("a smaller batch (--fit finds one within an eighth of the largest that fits)")
    excess = (error.used - error.limit) / _GIB
    return f"phase {index + 1} does not fit: it {error}, {excess:.2f} GiB too much; try {', or '.join(remedies)}"


def _values(index: int, plan: "Plan") -> dict[str, object]:
    fits = None if plan.limit is None else True  # else `step.plan` has raised DoesNotFit
    values = dataclasses.asdict(plan) | {"phase": index + 1, "fits": fits, "shape": dataclasses.asdict(plan.phase)}
    values["collectives"] = [
        dataclasses.asdict(collective) | {"arrays": list(map(str, collective.arrays)), "sent": collective.sent}
        for collective in plan.collectives
    ]
    return values | {"activations": plan.activations, "bound": plan.bound, "mfu": plan.mfu}


def _text(index: int, plan: "Plan", devices: "Topology") -> str:
    from bertjax.planning.collectives import totals

    mesh = " × ".join(f"{axis} {size}" for axis, size in plan.mesh.items() if size > 1) or "one device"
    limit = f" of {plan.limit / _GIB:.2f} ({1 - plan.total / plan.limit:.0%} free)" if plan.limit else ""
    lines = [
        f"phase {index + 1}: {plan.phase.batch} × {plan.phase.length} on {devices.name} ({mesh}); per device:",
        f"  memory: parameters {plan.parameters / _GIB:.2f}, optimizer {plan.optimizer / _GIB:.2f}, activations and "
        f"gradients {plan.activations / _GIB:.2f}, total {plan.total / _GIB:.2f} GiB{limit}",
        f"  FLOPs: model {plan.model_flops:.3g}, program {plan.program_flops:.3g} "
        f"({plan.program_flops / plan.model_flops:.2f} times the model's; the excess is recomputation)",
        f"  attention: {plan.attention}",
    ]
    sums = totals(plan.collectives).items()
    lines += [f"  {name}: {times} times, {sent / 1e6:,.1f} MB sent" for name, (times, sent) in sums]
    if not sums:
        lines.append("  no collectives")
    if plan.seconds:
        parts = ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in plan.seconds.items())
        lines.append(f"  lower bounds of the time in ms: {parts}; bound by {plan.bound}, MFU at most {plan.mfu:.0%}")
    if plan.unread_loops:
        lines.append(f"  loops of unknown trip count, counted once: {', '.join(plan.unread_loops)}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main)
