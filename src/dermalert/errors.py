"""Every error a user can cause, in one tree.

DermalertError
├── RefusedFile             one input file cannot be used; the batch goes on without it
│   ├── NotAPicture           not a regular file, empty, or in no format that we read
│   ├── BrokenPicture         the format is known, the content is cut off or corrupt
│   ├── BrokenArchive         an archive or a list that cannot be read to its end; what came before was used
│   ├── TooLarge              over a limit on bytes, pixels, frames or time
│   └── Unreadable            the operating system will not let us read it
├── DataError               a data set, table or manifest is not what it should be
│   ├── NotEnoughPositives    too few melanomas to support the figure asked for
│   ├── NotEnoughNegatives    too few lesions other than melanomas to support it
│   ├── NoSuchCase            the clinic has no case of that id
│   └── NotNow                what is asked of a case does not fit where it stands
├── BundleError             a trained model's files are missing, altered or too new
├── RunError                a training run cannot be started or resumed
├── OutputError             findings cannot be written, or what is unfinished there is another run's
├── ClusterError            machines that score together cannot be reached, or gave up on some pictures
├── ClinicError             the clinic cannot do what was asked of it
│   ├── Busy                  too many cases are waiting to be scored: try again in a while
│   ├── NoRoom                the disk is full
│   ├── KeyTaken              the same picture came under the same key, but of somebody else
│   ├── Damaged               something that was stored is gone or altered
│   └── SignInRefused         nobody of that name and password may come in, or not now
└── MissingExtra            an optional part of Dermalert is not installed
"""

from __future__ import annotations

import unicodedata
from pathlib import Path


class DermalertError(Exception):
    """Base of all errors that Dermalert raises on purpose. The message says what to do."""


class RefusedFile(DermalertError):
    """One file that cannot be used.

    Attributes:
        path: the file, as given.
        reason: what is wrong with it, in a few words.
        mend: what its owner can do about it.
    """

    code = "refused"

    def __init__(self, path: str | Path, reason: str, mend: str) -> None:
        self.path = str(path)
        self.reason = reason
        self.mend = mend
        super().__init__(path, reason, mend)

    def __str__(self) -> str:
        return f"{printable(self.path)}: {self.reason}. {self.mend}"


class NotAPicture(RefusedFile):
    """Not a regular file, empty, or in no format that Dermalert reads."""

    code = "not_a_picture"


class BrokenPicture(RefusedFile):
    """A picture of a known format whose content is cut off or corrupt."""

    code = "broken"


class BrokenArchive(RefusedFile):
    """An archive or a list of pictures that cannot be read to its end; what came before was used."""

    code = "broken_archive"


class TooLarge(RefusedFile):
    """A picture over a limit on bytes, pixels, frames or decoding time."""

    code = "too_large"


class Unreadable(RefusedFile):
    """A file that the operating system will not let us read."""

    code = "unreadable"


class DataError(DermalertError):
    """A data set, table or manifest is not what it should be."""


class NotEnoughPositives(DataError):
    """Too few melanomas to support the figure asked for."""


class NotEnoughNegatives(DataError):
    """Too few lesions other than melanomas to support the figure asked for."""


class NoSuchCase(DataError):
    """The clinic has no case of that id."""


class NotNow(DataError):
    """What is asked of a case does not fit where it stands, as histology before a decision."""


class BundleError(DermalertError):
    """A trained model's files are missing, altered or from a newer Dermalert."""


class RunError(DermalertError):
    """A training run cannot be started or resumed."""


class ClinicError(DermalertError):
    """The clinic cannot do what was asked of it."""


class Busy(ClinicError):
    """Too many cases are waiting to be scored.

    Attributes:
        retry_after: seconds to wait before the next try.
    """

    def __init__(self, waiting: int, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__(f"{waiting} cases wait to be scored already. Send the picture again in {retry_after} s.")


class NoRoom(ClinicError):
    """The disk is full; nothing that was stored before is lost."""


class KeyTaken(ClinicError):
    """The same picture was received under the same key, with other facts of its lesion or patient."""


class DecoderLost(ClinicError):
    """The process that decodes pictures died or hung on this one; another was started."""


class Damaged(ClinicError):
    """A stored file, a row or a backup is gone or altered."""


class SignInRefused(ClinicError):
    """Nobody of that name and password may come in, or not now. It never tells which of them was wrong."""


class OutputError(DermalertError):
    """Findings cannot be written, or what is unfinished at their place belongs to another run."""


class ClusterError(DermalertError):
    """Machines that score together cannot be reached, or gave up on some pictures."""


class MissingExtra(DermalertError):
    """An optional part of Dermalert is needed and not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the optional part [{extra}]. Install it from your clone of Dermalert: "
            f"pip install '.[{extra}]'"
        )


def printable(text: str) -> str:
    """`text` safe for one terminal line: control, line-breaking and undecodable characters become escapes."""
    return "".join(
        character
        if unicodedata.category(character)[0] != "C" and character not in "\u2028\u2029"
        else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def in_utf8(text: str) -> str:
    """`text` as a file in UTF-8 can hold it: of a file name that is no UTF-8, the stray bytes become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
