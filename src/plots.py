"""Every figure of one evaluation, drawn from its tables.

    figures = draw_figures(read_results(Path("results/demo")))
"""

import matplotlib

from src.plot_style import STYLE, Drawn, save
from src.plots_ladder import accuracy_by_depth
from src.plots_pgr import pgr_heatmap
from src.plots_training import calibration, learning_curves
from src.tables import Results


def draw_figures(results: Results) -> dict[str, Drawn]:
    """Draw what the tables hold into `<folder>/figures`; a table without rows has no figure.

    Returns:
        By name: accuracy_by_depth, pgr_heatmap, learning_curves, calibration.
    """
    models = results.accuracy[results.accuracy.role != "baseline"]
    wanted = {"accuracy_by_depth": (accuracy_by_depth, models),
              "pgr_heatmap": (pgr_heatmap, results.cells),
              "learning_curves": (learning_curves, results.curves),
              "calibration": (calibration, results.calibration.query("role != 'baseline'"))}
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for name, (draw, rows) in wanted.items():
            if len(rows):
                figure, title, caption = draw(results)
                drawn[name] = save(figure, results.folder / "figures", name, title, caption)
    return drawn
