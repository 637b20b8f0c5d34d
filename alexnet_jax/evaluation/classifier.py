"""Classifies images of any kind with a trained network.

  classifier = alexnet_jax.load('runs/digits')
  classifier.predict('photograph.jpg')

It needs neither TensorFlow, nor the data set, nor the folder of configs.
"""

import base64
import contextlib
import dataclasses
import functools
import html
import io
import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax import experiment
from alexnet_jax.checkpoints.pretrained import PretrainedNetwork
from alexnet_jax.data import imagenet_classes, images
from alexnet_jax.evaluation import inputs, layer_outputs, metrics
from alexnet_jax.models import summary
from alexnet_jax.parallel import compat
from alexnet_jax.utils.display import Display
from alexnet_jax.utils.errors import UserError, number_of

_MAX_BATCH = 128
_THUMBNAIL = 160  # pixels
_SHOWN = 20  # predictions of a list that a notebook shows


@dataclasses.dataclass(frozen=True)
class Prediction:
  """The most probable classes of an image, the most probable first.

  Attributes:
    class_names: names of the classes, as the network has them.
    probabilities: their probabilities, 0 to 1.
    image: the image as it was passed; of an open file, its bytes.
  """

  class_names: tuple[str, ...]
  probabilities: tuple[float, ...]
  image: Any = dataclasses.field(compare=False)

  @property
  def display_names(self) -> list[str]:
    """The classes as people read them: 'tabby, tabby cat' for ImageNet's synset 'n02123045'."""
    return imagenet_classes.display_names(self.class_names)

  def __repr__(self) -> str:
    pairs = zip(self.display_names, self.probabilities, strict=True)
    return f'Prediction({", ".join(f"{name}: {share:.1%}" for name, share in pairs)})'

  def _repr_html_(self) -> str:
    rows = ''.join(
      f'<tr><td style="text-align:left">{html.escape(name)}</td><td style="width:12em">'
      f'<div style="width:{share:.1%};height:1em;background:#88a"></div></td>'
      f'<td>{share:.1%}</td></tr>'
      for name, share in zip(self.display_names, self.probabilities, strict=True)
    )
    return (
      '<div style="display:flex;gap:1em;align-items:center;margin:0.5em 0">'
      f'{_picture(self.image)}<table>{rows}</table></div>'
    )


class Predictions(list[Prediction]):
  """A list of predictions that prints one per line."""

  def __repr__(self) -> str:
    return '\n'.join(map(repr, self))

  def _repr_html_(self) -> str:
    rest = f'<p>and {len(self) - _SHOWN:,} more</p>' if len(self) > _SHOWN else ''
    return ''.join(prediction._repr_html_() for prediction in self[:_SHOWN]) + rest


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Classifier(PretrainedNetwork):
  """A trained network that classifies images; `alexnet_jax.load` makes one.

  Its attributes are PretrainedNetwork's. Images are paths, the bytes of an image file, files that
  are open in binary mode (read from their start), Pillow images, or uint8 arrays [H, W, 3] (RGB) or
  [H, W] (gray) of any size; either one, or many as an iterable or an array [N, H, W, 3]. As
  in training's evaluation, the shorter side is scaled to data.image_size as data.resize says, and the
  network sees the center of the central square, with side model.input_size; only the JPEG compression
  with which photographs are stored for training is left out. Batch sizes are powers of two, at most 128, so
  that few programs are compiled. It can be pickled, which leaves the compiled programs out; two
  classifiers are equal only where they are the same object.
  """

  def __getstate__(self) -> dict[str, Any]:
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

  def predict(self, images: Any, top_k: int | None = None) -> Prediction | Predictions:
    """Predicts the most probable classes.

    Args:
      images: one or many; see the class.
      top_k: number of classes; None: five, or all where there are fewer.

    Returns:
      A Prediction for one image, a list of them for many.

    Raises:
      UserError: an image cannot be read, there are no images, or top_k is out of range.
    """
    listed, is_single = inputs.listed(images)
    count = len(self.class_names)
    top_k = metrics.num_best(count) if top_k is None else top_k
    try:
      top_k = operator.index(top_k)
    except TypeError as error:
      raise UserError(f'top_k is {top_k!r}; it must be a whole number') from error
    if not 1 <= top_k <= count:
      raise UserError(f'top_k is {top_k}, but must be from 1 to {count}, the number of classes')
    predictions = self._best(listed, self._compute(listed, 'fc8'), top_k)
    return predictions[0] if is_single else predictions

  def predict_readable(self, images: Any) -> tuple[Predictions, list[tuple[Any, str]]]:
    """Predicts the five most probable classes of those images that can be read.

    Args:
      images: at most 128; see the class.

    Returns:
      The predictions, in the order of the images; and each other image with why it cannot be read.

    Raises:
      UserError: there are no images.
    """
    listed, _ = inputs.listed(images)
    results = list(zip(listed, self._read(listed), strict=True))
    read = [(image, crop) for image, crop in results if not isinstance(crop, UserError)]
    unreadable = [(image, str(error)) for image, error in results if isinstance(error, UserError)]
    if not read:
      return Predictions(), unreadable
    readable, crops = zip(*read, strict=True)
    logits = self._outputs(np.stack(crops), 'fc8')
    return self._best(readable, logits, metrics.num_best(len(self.class_names))), unreadable

  def _best(self, listed: Sequence[Any], logits: np.ndarray, top_k: int) -> Predictions:
    """The most probable classes of images by their logits [N, classes]."""
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predictions = Predictions()
    for image, row in zip(listed, probabilities, strict=True):
      best = np.argsort(-row, kind='stable')[:top_k]
      names = tuple(self.class_names[i] for i in best)
      predictions.append(Prediction(names, tuple(row[best].tolist()), image))
    return predictions

  def logits(self, images: Any) -> np.ndarray:
    """Computes the network's outputs before the softmax, [N, classes] float32, of one or many images."""
    return self._compute(inputs.listed(images)[0], 'fc8')

  def features(self, images: Any, layer: str = 'fc7') -> np.ndarray:
    """Computes the output of a layer.

    Args:
      images: one or many; see the class.
      layer: a name in `layers`; see `layer_outputs.layer_names`.

    Returns:
      [N, ...] float32, both columns side by side in the last axis.

    Raises:
      UserError: an image cannot be read, there are no images, or there is no such layer.
    """
    if not isinstance(layer, str):
      raise UserError(f'layer is {layer!r}; give the name of one, as fc7')
    return self._compute(inputs.listed(images)[0], layer)

  def crops(self, images: Any) -> np.ndarray:
    """The crops of images that the network sees: [N, s, s, 3] uint8 with s = model.input_size."""
    return self._crops(inputs.listed(images)[0])

  @functools.cached_property
  @compat.default_settings()
  def layers(self) -> dict[str, tuple[int, ...]]:
    """The names of layers for `features`, and the shape of each for one image."""
    size = self.config.model.input_size
    crop = jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8)
    function = functools.partial(layer_outputs.intermediates, self.config)
    shapes = jax.eval_shape(function, self.params, self.statistics, crop)
    return {
      name: shapes[own].shape[1:] for name, own in layer_outputs.layer_names(self.config).items()
    }

  def __repr__(self) -> str:
    columns, size = self.config.model.num_columns, self.config.model.input_size
    parameters = sum(leaf.size for leaf in jax.tree.leaves(self.params))
    names = imagenet_classes.display_names(self.class_names)
    some = ', '.join(names if len(names) <= 5 else [*names[:3], '...', names[-1]])
    steps = '' if self.step is None else f', trained for {self.step:,} steps'
    return (
      f'AlexNet from {self.path}\n'
      f'{number_of(columns, "column")}, {size}x{size}x3 input, {parameters:,} parameters\n'
      f'{len(names):,} classes ({some}){steps}'
    )

  @compat.default_settings()
  def _repr_html_(self) -> str:
    from alexnet_jax.models import drawing  # matplotlib, which nothing else here needs

    net = experiment.make_network(self.config)
    rows, picture = summary.rows(net), io.BytesIO()
    drawing.draw(net).savefig(picture, format='png', dpi=100)

    def line(cells: Sequence[str], tag: str = 'td') -> str:
      return f'<tr>{"".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells)}</tr>'

    lines = [line(summary.HEADINGS, 'th'), *(line(summary.cells(row)) for row in rows)]
    about = html.escape(repr(self)).replace('\n', '<br>')
    table = f'<table>{"".join(lines)}{line(summary.total(rows))}</table>'
    return f'<p>{about}</p>{_image_tag(picture.getvalue(), "max-width:100%")}{table}'

  @functools.cached_property
  def _steps(self) -> dict[str, layer_outputs.OutputsStep]:
    """The compiled functions so far, by layer."""
    return {}

  def _compute(self, listed: Sequence[Any], layer: str) -> np.ndarray:
    """The output of a layer, [N, ...] float32."""
    parts = []
    with contextlib.ExitStack() as stack:
      update_progress = None
      if len(listed) > _MAX_BATCH:
        update_progress = stack.enter_context(Display()).task('images', len(listed))
      for start in range(0, len(listed), _MAX_BATCH):
        crops = self._crops(listed[start : start + _MAX_BATCH], start)
        parts.append(self._outputs(crops, layer))
        if update_progress:
          update_progress(len(crops))
    return np.concatenate(parts)

  @compat.default_settings()
  def _outputs(self, crops: np.ndarray, layer: str) -> np.ndarray:
    """The output of a layer for at most _MAX_BATCH crops."""
    if layer not in self._steps:
      self._steps[layer] = layer_outputs.make_outputs_step(self.config, [layer])
    count = len(crops)
    padded = np.zeros((1 << (count - 1).bit_length(), *crops.shape[1:]), np.uint8)
    padded[:count] = crops
    computed = self._steps[layer](self.params, self.statistics, padded)
    return np.asarray(computed[layer])[:count]

  def _crops(self, listed: Sequence[Any], first: int = 0) -> np.ndarray:
    """The crops of images, as `_read`; raises the first UserError."""
    crops = []
    for crop in self._read(listed, first):
      if isinstance(crop, UserError):
        raise crop
      crops.append(crop)
    return np.stack(crops)

  def _read(self, listed: Sequence[Any], first: int = 0) -> list[np.ndarray | UserError]:
    """Each image's crop, or why it cannot be read; `first` is the index of the first, for messages.

    An image that is there several times is read once: Pillow's cannot be by two threads at a time.
    """
    square, size = self.config.data.image_size, self.config.model.input_size
    border, resize = (square - size) // 2, self.config.data.resize

    def read(position: int) -> np.ndarray | UserError:
      try:
        rgb = inputs.rgb(listed[position], first + position, resize)
      except UserError as error:
        return error
      pixels = np.asarray(images.fit_square(rgb, square, resize))
      return pixels[border : border + size, border : border + size]

    firsts: dict[int, int] = {}
    for position, image in enumerate(listed):
      firsts.setdefault(id(image), position)
    with ThreadPoolExecutor() as pool:
      crops = dict(zip(firsts, pool.map(read, firsts.values()), strict=True))
    return [crops[id(image)] for image in listed]


def _picture(image: Any) -> str:
  """An image as HTML; '' where it can no longer be read."""
  with contextlib.suppress(UserError):
    rgb = inputs.rgb(image, 0).copy()  # it may be the caller's own
    rgb.thumbnail((_THUMBNAIL, _THUMBNAIL))
    style = f'height:{_THUMBNAIL}px;image-rendering:{"pixelated" if rgb.height < 64 else "auto"}'
    return _image_tag(images.encode(rgb, 'png'), style)
  return ''


def _image_tag(png: bytes, style: str) -> str:
  return f'<img style="{style}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
