"""Fine-tunes on one device and on 4 virtual devices: python -m tests.support.finetuned_on_meshes MODEL DATA OUTPUT.json

MODEL is a pre-trained workdir, DATA a folder with train.jsonl and dev.jsonl. Writes for each case and mesh the losses
of all steps, and the dev predictions of the model that was trained on one device.
"""

import dataclasses
import json
import os
import sys

MESHES = {"one device": {"data": 1}, "data 4": {"data": 4}, "data 2 x fsdp 2": {"data": 2, "fsdp": 2}}
CASES = {"classification": {"text": "text", "label": "class"}, "retrieval": {"text": "text", "second": "partner"}}


def main(model: str, data: str, output: str) -> None:
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    import jax

    from bertjax.config.finetuning import FinetuneConfig, TableConfig
    from bertjax.config.layout import MeshConfig
    from bertjax.finetuning.sweep import Sweep
    from bertjax.finetuning.task_model import open_task_model
    from bertjax.model.partitioning import state_shardings
    from bertjax.parallel.mesh import make_mesh
    from bertjax.trainer.loop import StopSignal

    assert jax.device_count() == 4
    results = {}
    for kind, columns in CASES.items():
        config = FinetuneConfig(
            task=f"table/{kind}",
            data_dir=data,
            table=TableConfig(train="train.jsonl", dev="dev.jsonl", **columns),
            init_from=model,
            learning_rates=(1e-3,),
            epochs=(1,),
            length=32,
            batch=16,
            train_examples=96,
            dtype="float32",
            log_every=1,
        )
        trained = None
        for name, axes in MESHES.items():
            mesh = make_mesh(MeshConfig(**axes), jax.devices()[: 1 if name == "one device" else 4])
            task_model, _, params = open_task_model(config)
            task_model = dataclasses.replace(task_model, mesh=mesh)
            train, dev = task_model.split("train", config.train_examples), task_model.split("dev")
            losses = []
            run_result = Sweep(task_model, params, train, [dev]).train(
                config.runs()[0],
                StopSignal(),
                lambda step, values, losses=losses: losses.append(values.get("train/loss")),
                show_progress=False,
            )
            trained = jax.device_get(run_result.params) if trained is None else trained
            placed = jax.device_put(trained, state_shardings(trained, mesh))
            predictions = [prediction.value for prediction in task_model.predictions(placed, dev)]
            result = {"losses": [loss for loss in losses if loss is not None], "predictions": predictions}
            results.setdefault(kind, {})[name] = result
    with open(output, "w") as file:  # noqa: PTH123
        json.dump(results, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
