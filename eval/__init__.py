"""Measures any speech model behind the assistant's public API: quality and latency on the same outputs."""
