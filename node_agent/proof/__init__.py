"""Whether a sidecar enforces, read from the configuration that is active in it (docs/adr/0015)."""
