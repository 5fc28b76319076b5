"""How often the diagnosis is right: case folders in, scores out. Nothing in here is read by the diagnosis."""
