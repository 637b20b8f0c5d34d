"""Writes a network as an ONNX file, by PyTorch's exporter."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PACKAGES: Sequence[str] = ('torch', 'onnx', 'onnxscript')
"""What `serialize` needs."""


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
    output 'logits', [n, classes] float32.
  """
  import torch  # here, for nothing else needs it

  names: dict[str, Any] = {'__name__': 'alexnet'}
  exec(compile(source, 'alexnet.py', 'exec'), names)  # as whoever reads the file would have it
  model = names['AlexNet']().eval()
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
  for name, text in metadata.items():
    proto.metadata_props.add(key=name, value=text)
  content: bytes = proto.SerializeToString()
  return content
