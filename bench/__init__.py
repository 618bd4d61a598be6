"""Measurements: minutes long, seeded, each prints one JSON line. `./run measure` lists them."""
