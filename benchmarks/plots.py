"""Pictures of the tables; both take rows as `harness.read_csv` gives them."""

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

_COLOURS = matplotlib.colormaps['tab10'].colors


def speedups(rows: list[dict[str, str]], path: Path) -> None:
    """Draw how many times as fast as PyTorch's own convolution everything is: a panel a pass, a line a layer."""
    passes, layers, names = (_distinct(rows, key) for key in ('pass', 'layer', 'implementation'))
    figure = Figure(figsize=(1.5 + 4.5 * len(passes), 1.2 + 0.3 * len(layers)))
    axes = figure.subplots(1, len(passes), sharey=True, squeeze=False)[0]
    for ax, name in zip(axes, passes, strict=True):
        for who, colour in zip(names, _COLOURS, strict=False):
            points = [row for row in rows if (row['pass'], row['implementation']) == (name, who)]
            values, lines = [float(row['speedup']) for row in points], [layers.index(row['layer']) for row in points]
            ax.scatter(values, lines, color=colour, label=who, alpha=0.8)
        ax.axvline(1, color='grey', linewidth=0.8)
        ax.set(title=name, xscale='log', xlabel='speed relative to the faster F.conv2d')
        ax.grid(alpha=0.3)
    axes[0].set_yticks(range(len(layers)), layers)
    axes[0].invert_yaxis()
    _save(figure, path)


def growth(rows: list[dict[str, str]], path: Path) -> None:
    """Draw how times grow with one quantity: a row of panels a pass, a column a quantity."""
    passes, series, names = (_distinct(rows, key) for key in ('pass', 'series', 'implementation'))
    figure = Figure(figsize=(3.5 * len(series), 3 * len(passes)))
    panels = figure.subplots(len(passes), len(series), sharex='col', sharey='row', squeeze=False)
    for name, line in zip(passes, panels, strict=True):
        for quantity, ax in zip(series, line, strict=True):
            for who, colour in zip(names, _COLOURS, strict=False):
                key = (name, quantity, who)
                curve = [row for row in rows if (row['pass'], row['series'], row['implementation']) == key]
                values, times = [int(row['value']) for row in curve], [float(row['ms']) for row in curve]
                ax.loglog(values, times, '.-', color=colour, label=who)
            ticks = sorted({int(row['value']) for row in rows if row['series'] == quantity})
            ax.set(title=name, xlabel=quantity, ylabel='ms')
            ax.set_xticks(ticks, ticks)
            ax.minorticks_off()
            ax.grid(alpha=0.3, which='both')
    _save(figure, path)


def _distinct(rows: list[dict[str, str]], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _save(figure: Figure, path: Path) -> None:
    legends = (ax.get_legend_handles_labels() for ax in figure.axes)
    handles = {label: handle for legend in legends for handle, label in zip(*legend, strict=True)}
    figure.tight_layout()
    figure.legend(handles.values(), handles, loc='upper center', bbox_to_anchor=(0.5, 0), ncols=4)
    figure.savefig(path, dpi=110, bbox_inches='tight')
