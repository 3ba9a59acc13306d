"""Dermalert: from a folder of dermoscopic pictures to an honest melanoma alert.

Research software. It supports a clinician and decides nothing alone.
"""

__version__ = "0.1.0"
