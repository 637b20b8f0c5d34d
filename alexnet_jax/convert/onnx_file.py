"""Reads the weights of ONNX files, without onnx, and writes networks as such, by PyTorch's exporter."""

import functools
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath

from alexnet_jax.convert import names, protobuf, untrusted
from alexnet_jax.utils import files
from alexnet_jax.utils.errors import UserError, first_line

PACKAGES: Sequence[str] = ('torch', 'onnx', 'onnxscript')
"""What `serialize` needs."""

# The parts of `onnx/onnx.proto` that hold weights, and say what follows convolutions.
_MESSAGES = protobuf.message_classes(
  'onnx',
  {
    'Entry': {'key': (1, 'optional bytes'), 'value': (2, 'optional bytes')},
    'Tensor': {
      'dims': (1, 'repeated int64'),
      'data_type': (2, 'optional int32'),
      'float_data': (4, 'repeated float'),
      'name': (8, 'optional bytes'),
      'raw_data': (9, 'optional bytes'),
      'external_data': (13, 'repeated Entry'),
    },
    'Node': {'input': (1, 'repeated bytes'), 'op_type': (4, 'optional bytes')},
    'Graph': {'node': (1, 'repeated Node'), 'initializer': (5, 'repeated Tensor')},
    'Model': {'graph': (7, 'optional Graph'), 'metadata_props': (14, 'repeated Entry')},
  },
)

_DTYPES: Mapping[int, np.dtype] = {
  1: np.dtype('<f4'),
  10: np.dtype('<f2'),
  11: np.dtype('<f8'),
  16: np.dtype(jnp.bfloat16),
}

# What may follow a convolution, as `order` of `models/options.py`.
_STEPS: Mapping[bytes, str] = {
  b'Relu': 'activation',
  b'LRN': 'norm',
  b'MaxPool': 'pool',
  b'AveragePool': 'pool',
}

# What else AlexNet's layers are exported as.
_USUAL = {
  b'Add', b'Cast', b'Concat', b'Constant', b'ConstantOfShape', b'Conv', b'Dropout', b'Flatten', b'Gather',
  b'Gemm', b'Identity', b'MatMul', b'Reshape', b'Shape', b'Slice', b'Softmax', b'Squeeze', b'Transpose',
  b'Unsqueeze',
}  # fmt: skip

# The names of Caffe2, by which Caffe's networks became ONNX files.
_CAFFE2 = re.compile(r'(.+)_([wb])_0')


class OnnxFile(NamedTuple):
  """What an ONNX file says of its network.

  Attributes:
    arrays: the weights by name, in the order of the file, of floating-point types. Those that Caffe2
      calls 'conv1_w_0' and 'conv1_b_0' are 'conv1[0]' and 'conv1[1]', as in a caffemodel.
    orders: of what follows each convolution, as {'conv1': 'activation-norm-pool'}.
    is_caffe: whether the names are Caffe2's.
    others: the kinds of its steps that AlexNet's layers are not exported as, such as 'Tanh'.
  """

  arrays: dict[str, np.ndarray]
  orders: dict[str, str]
  is_caffe: bool
  others: list[str]


def is_onnx(path: epath.Path) -> bool:
  """Whether a file begins as ONNX files do, or is called so."""
  files.check_kind(path)
  with path.open('rb') as file:
    head = file.read(3)
  # The version, below 32, then the producer.
  begins_so = head[:1] == b'\x08' and head[1:2] < b'\x20' and head[2:] == b'\x12'
  return begins_so or path.suffix == '.onnx'


def read_metadata(path: epath.Path) -> dict[str, str]:
  """Reads the metadata of an ONNX file; raises UserError where it is none."""
  with untrusted.described(path, 'an ONNX file'):
    model = _MESSAGES['Model'].FromString(path.read_bytes())
    return {_text(entry.key): entry.value.decode() for entry in model.metadata_props}


def read(path: epath.Path) -> OnnxFile:
  """Reads the weights of an ONNX file, and of the file of weights beside it that it may name.

  Raises:
    UserError: it is not an ONNX file, is incomplete, or has no floating-point weights, such as a
      quantized network.
  """
  with untrusted.described(path, 'an ONNX file'):
    model = _MESSAGES['Model'].FromString(path.read_bytes())
    tensors = {_text(tensor.name): tensor for tensor in model.graph.initializer}
    floats = {name: tensor for name, tensor in tensors.items() if tensor.data_type in _DTYPES}
    if not any(len(tensor.dims) >= 2 for tensor in floats.values()):
      raise ValueError('it has no floating-point weights; a quantized network is not read')
    # Tensors share the content of a file, however many are in it.
    beside = functools.cache(functools.partial(_read_beside, path))
    arrays = {name: _array(tensor, beside) for name, tensor in floats.items()}
    matches = {name: _CAFFE2.fullmatch(name) for name in arrays}
    is_caffe = all(matches.values())
    if is_caffe:
      as_caffe = {
        name: f'{found[1]}[{"wb".index(found[2])}]' for name, found in matches.items() if found
      }
      arrays = {as_caffe[name]: array for name, array in arrays.items()}
    steps = names.orders(_steps_and_convolutions(model.graph.node))
    types = {node.op_type for node in model.graph.node} - _USUAL - _STEPS.keys()
    return OnnxFile(arrays, steps, is_caffe, sorted(map(_text, types)))


def _steps_and_convolutions(nodes: Iterable[Any]) -> Iterator[tuple[str | None, str | None]]:
  """The nodes as `names.orders` takes them."""
  for node in nodes:  # in the order in which they run
    if node.op_type in _STEPS:
      yield _STEPS[node.op_type], None
    elif len(node.input) >= 2:
      named = _CAFFE2.fullmatch(_text(node.input[1]))
      yield None, named[1] if named and node.op_type == b'Conv' else None


def _array(tensor: Any, beside: Callable[[str], bytes]) -> np.ndarray:
  shape, dtype = list(tensor.dims), _DTYPES[tensor.data_type]
  if tensor.external_data:
    where = {_text(entry.key): _text(entry.value) for entry in tensor.external_data}
    rest = memoryview(beside(where['location']))[int(where.get('offset', '0')) :]
    content = rest[: int(where.get('length', len(rest)))]
  else:
    content = memoryview(tensor.raw_data or np.array(tensor.float_data, '<f4').tobytes())
  return untrusted.shaped(np.frombuffer(content, dtype), shape)


def _read_beside(path: epath.Path, name: str) -> bytes:
  """The content of the file of weights of this name beside an ONNX file."""
  if name in ('', '.', '..') or '/' in name or '\\' in name:
    raise ValueError(f'its weights are in {name}, which is not beside it')
  file = path.with_name(name)
  if not file.exists():
    raise UserError(
      f'the weights of {path} are in {file}, which is not there; keep the two together'
    )
  if '://' not in str(path):
    files.inside(path.parent, name)
  content: bytes = file.read_bytes()
  return content


def _text(value: bytes) -> str:
  return first_line(value.decode())


def serialize(
  source: str, arrays: Mapping[str, np.ndarray], input_size: int, metadata: Mapping[str, str]
) -> bytes:
  """Exports the module of `pytorch_module.source`; needs PACKAGES.

  Args:
    source: Python that defines `AlexNet`.
    arrays: its state dict.
    input_size: side of its crops in pixels.
    metadata: texts by name, to be kept in the file.

  Returns:
    A ModelProto with the input 'crops', [n, 3, input_size, input_size] uint8 for any n, and the
    output 'logits', [n, classes] float32. All biases are in it by their names.
  """
  import torch  # here, for nothing else needs it

  module: dict[str, Any] = {'__name__': 'alexnet'}
  exec(compile(source, 'alexnet.py', 'exec'), module)  # as whoever reads the file would have it
  model = module['AlexNet']().eval()
  model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
  crops = torch.zeros(2, 3, input_size, input_size, dtype=torch.uint8)
  with warnings.catch_warnings(action='ignore'):  # the exporter's, of its own parts
    program = torch.onnx.export(
      model,
      (crops,),
      input_names=['crops'],
      output_names=['logits'],
      dynamic_shapes={'crops': {0: torch.export.Dim('n')}},
      dynamo=True,
      verbose=False,
    )
  assert program is not None
  proto = program.model_proto
  for node in proto.graph.node:
    node.ClearField('metadata_props')  # which lines of code made it, by this machine's paths
  # The exporter leaves out biases that are all 0, and of equal ones all but the first.
  kept = {tensor.name for tensor in proto.graph.initializer}
  for name, array in arrays.items():
    if name.endswith('.bias') and name not in kept:
      content = np.asarray(array, '<f4').tobytes()
      proto.graph.initializer.add(name=name, dims=array.shape, data_type=1, raw_data=content)
  for name, text in metadata.items():
    proto.metadata_props.add(key=name, value=text)
  serialized: bytes = proto.SerializeToString()
  return serialized
