"""The IR of :mod:`gateway_translator` as resources of Envoy, one by one."""
