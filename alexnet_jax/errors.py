"""The one exception for what a user can mend."""


class UserError(ValueError):
  """A mistake of the user's; the message says in a line or two what is wrong and what to do."""
