"""A matplotlib figure that a notebook shows."""

import io

from matplotlib import figure


class Figure(figure.Figure):
  """A matplotlib figure that shows itself in a notebook, though nothing has imported pyplot."""

  def _repr_png_(self) -> bytes:
    file = io.BytesIO()
    self.savefig(file, format='png', dpi=100)
    return file.getvalue()
