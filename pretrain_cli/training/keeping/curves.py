"""Draws a run's curves: loss, learning rate, gradient norm and speed by step."""

from __future__ import annotations

from pretrain_cli.artifacts import RunFolder
from pretrain_cli.drawing import plain_style
from pretrain_cli.foreign import DRAWN, keep_aside
from pretrain_cli.storage import read_lines, replacing


@plain_style()
def draw_curves(run: RunFolder) -> str:
    """Draw curves.png: training and validation loss, learning rate and speed by step.

    Returns:
        What has to be said of another picture there; mostly nothing.
    """
    from matplotlib.figure import Figure

    lines = read_lines(run.metrics)
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = (("loss", "loss"), ("learning_rate", "learning rate"), ("grad_norm", "gradient norm"))
    for place, (key, title) in zip(axes.flat, (*panels, ("tokens_per_second", "tokens/s")), strict=True):
        points = [(line["step"], line[key]) for line in lines if line.get(key) is not None]
        place.plot(*zip(*points, strict=True), linewidth=1, label="training") if points else None
        if key == "loss":
            held_out = [(line["step"], line["validation_loss"]) for line in lines if line.get("validation_loss")]
            place.plot(*zip(*held_out, strict=True), "o-", label="held out") if held_out else None
            place.legend()
        place.set(title=title, xlabel="step")
        place.grid(alpha=0.3)
    told = keep_aside(run.curves)
    with replacing(run.curves) as temporary:
        figure.savefig(temporary, dpi=110, format="png", metadata=DRAWN)
    return told
