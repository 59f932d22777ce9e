"""A map of a built transport network, as SVG."""

import math
from collections.abc import Sequence

from bilevel.report.plots import _GREY, _INK, draw_svg

_BUILT = 1e-2  # less capacity than this counts as not built


def network_svg(
    tail: Sequence[int],
    head: Sequence[int],
    capacity: Sequence[float],
    flow: Sequence[float],
    places: Sequence[tuple[float, float]] | None,
    n_stations: int,
    title: str,
) -> str:
    """SVG of stations and links: width of an arrow is its capacity, colour the trips on it; grey lines are not built.

    Traffic keeps to the right: the arrow from A to B bends to its right-hand side.

    Args:
        tail: (L,) station that a link leaves.
        head: (L,) station that it reaches.
        capacity: (L,)
        flow: (L,) trips.
        places: (S, 2) longitude and latitude in degrees; None puts stations on a circle.
        n_stations: S.
        title: Heading.
    """
    if places is None:
        turns = [2 * math.pi * i / n_stations for i in range(n_stations)]
        xy, aspect = [(math.sin(t), math.cos(t)) for t in turns], 1.0
    else:
        xy = [(float(lon), float(lat)) for lon, lat in places]
        aspect = 1 / math.cos(math.radians(sum(lat for _, lat in xy) / len(xy)))
    top, most = max(*capacity, _BUILT), max(*flow, 1e-9)

    def draw(axes) -> None:
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LinearSegmentedColormap, Normalize
        from matplotlib.lines import Line2D
        from matplotlib.patches import FancyArrowPatch

        # Without the palest tenth, which would vanish on white.
        tints = LinearSegmentedColormap.from_list("flow", colormaps["viridis_r"]([i / 9 for i in range(1, 10)]))
        scale = Normalize(0, most)
        for a, b, x, z in sorted(zip(tail, head, capacity, flow, strict=True), key=lambda link: link[2]):
            if x < _BUILT:
                axes.plot(*zip(xy[a], xy[b], strict=True), ":", color="#c5cad1", lw=0.9, zorder=1)
                continue
            width = _width(x, top)
            style = {"arrowstyle": "-|>", "connectionstyle": "arc3,rad=0.14", "mutation_scale": 5 + 1.6 * width}
            ends = {"shrinkA": 6, "shrinkB": 7, "zorder": 2, "color": tints(scale(z)), "lw": width}
            axes.add_patch(FancyArrowPatch(xy[a], xy[b], **style, **ends))
        for number, (east, north) in enumerate(xy, 1):
            axes.plot(east, north, "o", ms=12, mfc="white", mec=_INK, mew=1.2, zorder=3)
            axes.annotate(str(number), (east, north), ha="center", va="center", fontsize=7, zorder=4)
        axes.set_aspect(aspect)
        axes.margins(0.1)
        axes.set_axis_off()
        bar = axes.figure.colorbar(ScalarMappable(scale, tints), ax=axes, shrink=0.5, pad=0.01, aspect=18)
        bar.set_label("trips")
        bar.outline.set_visible(False)
        shown = [round(top * part, 1 - math.floor(math.log10(top * part))) for part in (0.1, 0.5, 1.0)]
        lines = [Line2D([], [], color=_GREY, lw=_width(x, top), label=f"capacity {x:g}") for x in shown]
        lines.append(Line2D([], [], color="#c5cad1", ls=":", lw=0.9, label="not built"))
        axes.figure.legend(handles=lines, loc="outside lower center", ncols=4, frameon=False, fontsize=9)

    return draw_svg(draw, (7.4, 5.0), title)


def _width(capacity: float, top: float) -> float:
    """Line width in points."""
    return 0.6 + 5.4 * capacity / top
