"""``sidegate connectivity test``: whether the policies of a cluster hold, tried by pods in it."""
