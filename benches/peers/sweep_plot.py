"""The plot of sweep.py's work L: `python sweep_plot.py OUT.svg`, what was measured as JSON on stdin.

Left, seconds against the block evaluations that a sweep shares, with the least-squares line through all points; right,
the same seconds against those of the plans one by one: what they would be proportional to if nothing were shared.
"""

import json
import statistics
import sys

import matplotlib

matplotlib.use("svg")
# The same file from the same numbers.
matplotlib.rcParams.update({"svg.hashsalt": "lesion", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
import matplotlib.pyplot as plt  # noqa: E402 (the backend comes first)

# Of Okabe and Ito: told apart by the colour-blind. The marks differ, too.
MARKS = [("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D")]


def half_range(values):
    """Half the interquartile range."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / 2


def main():
    measured = json.load(sys.stdin)
    growth, line = measured["growth"], measured["fits"]["blocks"]
    figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.2), sharey=True, layout="constrained")
    families = list(dict.fromkeys(point["family"] for point in growth))
    for axis, key in zip(axes, ("blocks", "naive_blocks")):
        for family, (colour, mark) in zip(families, MARKS):
            points = [point for point in growth if point["family"] == family]
            axis.errorbar(
                [point[key] for point in points],
                [statistics.median(point["seconds"]) for point in points],
                yerr=[half_range(point["seconds"]) for point in points],
                fmt=mark, color=colour, markersize=6, capsize=2, linestyle="none", label=f"first plans of `{family}`", zorder=3,
            )  # fmt: skip
        axis.grid(color="#DDDDDD", linewidth=0.6)
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
    most = max(point["blocks"] for point in growth)
    axes[0].plot(
        [0, most],
        [line["intercept"], line["intercept"] + line["slope"] * most],
        color="black", linewidth=1, zorder=2,
        label=f"least squares: {1000 * line['slope']:.2f} ms a block, R² = {line['r2']:.4f}",
    )  # fmt: skip
    axes[0].set_xlabel("shared block evaluations (blocks per example)")
    axes[1].set_xlabel("block evaluations plan by plan (blocks per example)")
    axes[0].set_ylabel("time of the sweep (seconds)")
    axes[0].legend(frameon=False, fontsize=8.5, loc="upper left")
    figure.savefig(sys.argv[1], metadata={"Date": None})


if __name__ == "__main__":
    main()
