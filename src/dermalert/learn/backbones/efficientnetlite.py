"""EfficientNet-Lite0 and Lite2, without their classifiers. Their weights come as files, not with the package.

Architecture: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019,
https://arxiv.org/abs/1905.11946, table 1, without squeeze-and-excitation, with ReLU6, and first and last layers that
do not grow, as TensorFlow's authors made it for small devices:
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite. Lite2 is 1.1 times as wide and 1.2
times as deep. `scripts/convert_lite.py` makes the files from published weights (Apache-2.0).
"""

from __future__ import annotations

from dermalert.learn.backbones.inverted import Architecture

_SEEN = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)  # mean and deviation
_MADE_BY = "scripts/convert_lite.py"

LITE0 = Architecture(
    "efficientnet-lite0",
    (
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ),
    *_SEEN,
    both_sides=False,
    made_by=_MADE_BY,
)
LITE2 = Architecture(
    "efficientnet-lite2",
    (
        (1, 16, 1, 1, 3),
        (6, 24, 3, 2, 3),
        (6, 48, 3, 2, 5),
        (6, 88, 4, 2, 3),
        (6, 120, 4, 1, 5),
        (6, 208, 5, 2, 5),
        (6, 352, 1, 1, 3),
    ),
    *_SEEN,
    both_sides=False,
    made_by=_MADE_BY,
)
