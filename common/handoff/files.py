"""What ``export`` writes and ``import`` reads: a magic line with the session spec, then the document, then a newline.

There is no peer to ask, so whoever writes the file chooses the spec. The line says it again, for people and for ``file``;
the newline at the end shows that nothing was cut off.
"""

from __future__ import annotations

from . import conversions, documents, vm
from .documents import NEWEST, SIZE_LIMIT, Container, Spec
from .errors import InvalidFile

#: How a file begins; the number of the spec and a newline follow.
MAGIC = b"vmaccord-session "

#: The longest first line, in bytes; with it, its newline and the last one, a file is at most so much larger than a document.
LINE_LIMIT = 40

#: The largest file, in bytes. Whoever reads one need not read more than a byte beyond.
FILE_LIMIT = SIZE_LIMIT + LINE_LIMIT + 2


def write(spec: Spec, to: int = NEWEST, allow_loss: bool = False) -> bytes:
    """The file of *spec*, converted to the session spec *to*.

    :raises UnknownSpec: *to* is not known.
    :raises WouldLose: the conversion would lose something, and *allow_loss* is not set.
    :raises InvalidDocument: it can't be written.
    """
    converted = conversions.convert(spec, to, allow_loss)
    return b"%s%d\n%s\n" % (MAGIC, to, documents.write(converted, of=vm.of_session(spec)))


def read(content: bytes) -> Spec:
    """The session in a file, of the spec that it was written in.

    :raises InvalidFile, UnknownSpec, InvalidDocument: see ``read_container``.
    """
    return read_container(content).spec


def read_container(content: bytes) -> Container:
    """The document in a file.

    :raises InvalidFile: not such a file, or a damaged one.
    :raises UnknownSpec: of a spec that is not known here.
    :raises InvalidDocument: the document in it can't be used.
    """
    if len(content) > FILE_LIMIT:
        raise InvalidFile(f"the file is larger than {FILE_LIMIT} bytes, no exported session is: name another file")
    number = _read_number(content)
    documents.find(number)
    _, _, document = content.partition(b"\n")
    if not document.endswith(b"\n"):
        raise InvalidFile("the end of the file is missing: copy it again, or export the guest again")
    container = documents.read_container(document[:-1])
    if documents.number_of(container.spec) != number:
        raise InvalidFile("the file's first line and its document name different specs: export the guest again")
    return container


def _read_number(content: bytes) -> int:
    line, _, _ = content[: LINE_LIMIT + 1].partition(b"\n")
    digits = line[len(MAGIC) :]
    if not line.startswith(MAGIC):
        raise InvalidFile("not an exported session: name a file that 'vmaccord export' has written")
    if not digits.isdigit() or len(line) > LINE_LIMIT:
        raise InvalidFile("the file's first line is damaged: copy it again, or export the guest again")
    return int(digits)
