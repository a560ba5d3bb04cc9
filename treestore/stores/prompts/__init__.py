"""The ``prompts`` service: versions of prompts, and what their use comes to."""
