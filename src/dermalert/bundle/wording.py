"""What the card and the checklists say alike of how a bundle was made and of what its graph does."""

from __future__ import annotations

from dermalert.bundle.format import Bundle


def is_release(bundle: Bundle) -> bool:
    """Whether `dermalert release` made it, out of several folds, and not a single training."""
    return "folds" in bundle.data


def in_graph(bundle: Bundle) -> str:
    """What else is done to a picture than to bring it to size."""
    done = " and ".join(name.replace("-", " ") for name in bundle.prepare)
    return f"The graph itself then applies {done}, and nothing else is done." if done else "Nothing else is done to it."


def choices(bundle: Bundle) -> str:
    """On what epoch, calibration and thresholds were chosen."""
    if not is_release(bundle):
        return (
            "Epoch, calibration and thresholds were chosen on pictures that the weights were not learnt from, and none "
            "on test pictures."
        )
    return (
        "No epoch was chosen. Calibration, thresholds and sets were fitted out of fold: on what each of "
        f"{bundle.data['folds']} networks says of lesions that it did not learn from. The network that ships was made "
        "of these and has learnt from all their lesions; its logits were brought to the range of theirs, without a "
        "label. How well all of it fits then, the lesions held out from everything tell."
    )


def never_named(bundle: Bundle) -> str:
    """Which classes it can't tell; empty where it can tell all."""
    if not bundle.untold:
        return ""
    return (
        f"It never names {' or '.join(bundle.untold)}: no label that it was calibrated on means that and nothing else, "
        "so that the probability stays with what such labels mean besides."
    )
