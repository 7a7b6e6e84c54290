"""Plots of a run: losses and accuracies by step."""

from pathlib import Path
from typing import TYPE_CHECKING

from bertjax.errors import UserError
from bertjax.storage.files import atomic_write
from bertjax.trainer import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curves(workdir: Path) -> Path:
    """Plots `workdir/metrics.jsonl` as `workdir/curves.png` and returns the path of the image.

    Raises:
      UserError: the image cannot be written.
    """
    from matplotlib.figure import Figure  # without pyplot, whose backend belongs to the application

    records = metrics.read(workdir / "metrics.jsonl")
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    _plot(loss, records, "train/mlm_loss", "training", color="tab:blue", alpha=0.4)
    _plot(loss, records, "eval/mlm_loss", "held out", color="tab:blue", marker="o", markersize=3)
    _plot(loss, records, "eval/unigram_entropy", "unigram baseline", color="tab:gray", linestyle="--")
    _plot(accuracy, records, "eval/mlm_accuracy", "masked LM, held out", color="tab:blue", marker="o", markersize=3)
    for name, task in (("nsp", "next sentence"), ("sop", "sentence order")):
        label = f"{task}, held out"
        _plot(accuracy, records, f"eval/{name}_accuracy", label, color="tab:orange", marker="o", markersize=3)
    loss.set(title="Masked-LM loss", xlabel="step", ylabel="nats per masked token")
    accuracy.set(title="Accuracy", xlabel="step", ylim=(0, 1))
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:  # a run stopped early may have no point
            axes.legend()
    path = workdir / "curves.png"
    try:
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); the run itself is saved; run the same command again to "
            "draw the curves"
        ) from error
    return path


def _plot(axes: "Axes", records: list[metrics.Record], name: str, label: str, **style) -> None:
    points = [(record["step"], record[name]) for record in records if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)
