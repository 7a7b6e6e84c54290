"""The picture of a run: its losses over its steps."""

from pathlib import Path

from bertjax.errors import UserError
from bertjax.storage.files import written_whole
from bertjax.trainer import metrics


def draw(workdir: Path) -> Path:
    """Draws `workdir/metrics.jsonl` as `workdir/curves.png` and returns the picture's path.

    Raises:
      UserError: it cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    records = metrics.read(workdir / "metrics.jsonl")
    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    _plot(loss, records, "train/mlm_loss", "training", color="tab:blue", alpha=0.4)
    _plot(loss, records, "eval/mlm_loss", "held out", color="tab:blue", marker="o", markersize=3)
    _plot(loss, records, "eval/unigram_entropy", "word counts alone", color="tab:gray", linestyle="--")
    _plot(accuracy, records, "eval/mlm_accuracy", "masked words, held out", color="tab:blue", marker="o", markersize=3)
    for name, task in (("nsp", "next sentence"), ("sop", "sentence order")):
        label = f"{task}, held out"
        _plot(accuracy, records, f"eval/{name}_accuracy", label, color="tab:orange", marker="o", markersize=3)
    loss.set(title="Masked-LM loss", xlabel="step", ylabel="nats a masked token")
    accuracy.set(title="Accuracy", xlabel="step", ylim=(0, 1))
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
        axes.legend()
    path = workdir / "curves.png"
    try:
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png")
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; the run is whole, the same command draws it again"
        ) from error
    return path


def _plot(axes, records: list[dict], name: str, label: str, **style) -> None:
    points = [(record["step"], record[name]) for record in records if name in record]
    if points:
        axes.plot(*zip(*points, strict=True), label=label, **style)
