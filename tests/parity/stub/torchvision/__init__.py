"""Stands in for torchvision, whose wheels are CUDA builds; cuvis-ai imports three names of it."""

from torchvision import io, models, ops, transforms, tv_tensors

__version__ = "0.0.0"
__all__ = ["io", "models", "ops", "transforms", "tv_tensors"]
