"""A display for tests of what is told while something is done."""


class Lines:
  """Keeps what it is told, and hands each line on."""

  live = False

  def __init__(self, heard=lambda text: None):
    self.lines, self.heard = [], heard

  def line(self, text):
    self.lines.append(text)
    self.heard(text)

  def task(self, *_):
    return lambda *args, **kwargs: None

  @property
  def text(self):
    return '\n'.join(self.lines)
