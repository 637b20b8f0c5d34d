"""Reads protobuf messages by the fields that are of use, without code generated from a schema."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Messages = Mapping[str, Mapping[str, tuple[int, str]]]
"""By message, its fields: their numbers, and what they are, as 'repeated int64' or 'optional Blob'.

A field's type is protobuf's, or another of the messages.
"""


def message_classes(package: str, messages: Messages) -> dict[str, Any]:
  """The protobuf classes of messages, by name; other fields are left unread by `FromString`."""
  file = descriptor_pb2.FileDescriptorProto(name=f'{package}.proto', package=package)
  for name, fields in messages.items():
    message = file.message_type.add(name=name)
    for field_name, (number, declared) in fields.items():
      label, kind = declared.split()
      field = message.field.add(name=field_name, number=number)
      field.label = field.Label.Value(f'LABEL_{label.upper()}')
      if kind in messages:
        field.type, field.type_name = field.TYPE_MESSAGE, f'.{package}.{kind}'
      else:
        field.type = field.Type.Value(f'TYPE_{kind.upper()}')
  pool = descriptor_pool.DescriptorPool()
  pool.Add(file)
  return {
    name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f'{package}.{name}'))
    for name in messages
  }
