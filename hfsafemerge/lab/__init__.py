"""A small fictional world whose language models are real, for the demo, the tests and trying things offline."""
