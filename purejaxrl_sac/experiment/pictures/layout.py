"""Sizes of figures in inches, and of their text, for screens and for papers."""

from __future__ import annotations

import contextlib
import textwrap
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties

from purejaxrl_sac.config import ConfigError
from purejaxrl_sac.experiment.errors import shortened

COLUMN_WIDTHS = {1: 3.25, 2: 6.75}  # inches, of a paper with two columns
SMALLEST, LARGEST = 1.0, 30.0  # inches
MARGIN = 0.1  # inches that a title leaves free
LINE = 0.16  # inches, height of a line of small text
CHARACTER = 0.066  # inches, mean width of its characters
SMALL = 8  # points
ON_SCREEN: Any = {
    "axes.titlesize": "medium",
    "legend.fontsize": "small",
    "legend.title_fontsize": "small",
}
ON_PAPER: Any = {  # points, at the printed size
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "figure.titlesize": 9,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
}


class Layout(NamedTuple):
    """Size of a figure; None for what suits a screen, or for the height that its panels need."""

    width: float | None = None  # inches
    height: float | None = None  # inches

    @property
    def dpi(self) -> int:
        """Resolution of PNG files."""
        return 150 if self.width is None else 300

    def fonts(self) -> contextlib.AbstractContextManager[None]:
        """Sets the sizes of text created within."""
        return mpl.rc_context(ON_SCREEN if self.width is None else ON_PAPER)


SCREEN = Layout()


def columns(number: int) -> Layout:
    """A figure as wide as one or two columns of a paper.

    Raises:
        ConfigError: another number of columns.
    """
    if number not in COLUMN_WIDTHS:
        raise ConfigError(f"columns is {number}, but must be 1 or 2")
    return Layout(COLUMN_WIDTHS[number])


def inches(width: float, height: float) -> Layout:
    """A figure of exactly this size.

    Raises:
        ConfigError: the size is too small or too large.
    """
    if not all(SMALLEST <= side <= LARGEST for side in (width, height)):
        raise ConfigError(
            f"size is {width:g} x {height:g} inches, but sides must be from {SMALLEST:g} to"
            f" {LARGEST:g}"
        )
    return Layout(width, height)


def fit_title(axes: Axes) -> None:
    """Shorten the title of a panel, in its middle, to what the figure has place for.

    Titles with formulas are left as they are.
    """
    text: str = axes.get_title()
    figure: Any = axes.figure
    figure.draw_without_rendering()  # which places the panel
    box = axes.title.get_window_extent()
    middle = (box.x0 + box.x1) / 2
    place = 2 * min(middle, figure.bbox.width - middle) - MARGIN * figure.dpi
    if "$" in text or box.width <= place:
        return
    length = int(len(text) * place / box.width) + 1
    while axes.title.get_window_extent().width > place and length > 1:
        length -= 1
        axes.title.set_text(shortened(text, length, length // 3))


def wrapped(text: str, width: float, size: str | float = SMALL) -> str:
    """The text in lines of at most `width` inches; a formula is not broken.

    Args:
        size: of the text, in points or by matplotlib's name.
    """
    if "$" in text:
        return text
    character = CHARACTER * FontProperties(size=size).get_size_in_points() / SMALL
    return "\n".join(textwrap.wrap(text, max(8, int(width / character)))) or text
