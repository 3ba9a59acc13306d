"""Backbones: networks that turn a picture into features, and know ImageNet when they start.

Each file here is one architecture, read from top to bottom. The weights that lie beside it come with the package,
so that transfer learning needs no internet.
"""
