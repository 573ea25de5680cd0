"""mmpt-bench: decide how to adapt a multimodal LLM, on numbers that can be believed."""

__version__ = "0.1.0"
