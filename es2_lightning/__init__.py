"""ES2, Embedding Space Separation (arXiv 2603.20206), on PyTorch Lightning."""

__version__ = "0.1.0"
