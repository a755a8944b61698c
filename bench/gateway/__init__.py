"""Gateways, on a node by itself."""
