"""``common.handoff.files``"""

from __future__ import annotations

import pytest
from hypothesis import given

from common.handoff import documents, files
from common.handoff.documents import Spec
from common.handoff.errors import InvalidDocument, InvalidFile, UnknownSpec, WouldLose
from common.handoff.spec0 import Spec0
from common.handoff.spec1 import Spec1

from .sessions import ANY_SPEC, GOOD, document


def test_a_file_is_a_magic_line_with_the_spec_and_the_document() -> None:
    content = files.write(Spec0(guest_fqdn="a"), to=0)
    assert content == b'vmaccord-session 0\n{"spec":0,"session":{"guestIPs":"","guestFQDN":"a"}}\n'


@pytest.mark.parametrize("name", GOOD)
def test_a_document_of_the_corpus_in_a_file_is_read(name: str) -> None:
    spec = documents.read(document(name))
    content = b"vmaccord-session %d\n%s\n" % (documents.number_of(spec), document(name))
    assert files.read(content) == spec


@given(ANY_SPEC)
def test_what_is_written_is_read_again_in_the_newest_spec(spec: Spec) -> None:
    read = files.read(files.write(spec))
    assert documents.number_of(read) == documents.NEWEST
    assert files.read(files.write(spec, documents.number_of(spec))) == spec


def test_an_older_spec_is_written_only_where_nothing_is_lost_or_the_loss_is_allowed() -> None:
    with pytest.raises(WouldLose, match="would lose name: "):
        files.write(Spec1(name="a"), to=0)
    assert files.read(files.write(Spec1(name="a"), to=0, allow_loss=True)) == Spec0()


def test_an_unknown_spec_is_not_written() -> None:
    with pytest.raises(UnknownSpec):
        files.write(Spec1(), to=3)


def test_an_unknown_spec_is_refused_by_the_first_line_alone() -> None:
    with pytest.raises(UnknownSpec, match="session spec 3 is not known here, known are 0, 1, 2: "):
        files.read(b"vmaccord-session 3\n\x00\x01\x02")


GOOD_FILE = b'vmaccord-session 1\n{"spec":1,"session":{}}\n'


@pytest.mark.parametrize("length", range(len(GOOD_FILE)))
def test_a_file_that_was_cut_anywhere_is_refused(length: int) -> None:
    assert files.read(GOOD_FILE) == Spec1()
    with pytest.raises(InvalidFile):
        files.read(GOOD_FILE[:length])


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not an exported session: name a file"),
        (b"\x7fELF", "not an exported session: name a file"),
        (b'{"spec": 1, "session": {}}\n', "not an exported session: name a file"),
        (b"vmaccord-session one\n{}\n", "first line is damaged"),
        (b"vmaccord-session -1\n{}\n", "first line is damaged"),
        (b"vmaccord-session \xb2\n{}\n", "first line is damaged"),
        (b"vmaccord-session " + b"1" * 1000 + b"\n{}\n", "first line is damaged"),
        (b'vmaccord-session 2\n{"spec":1}\n', "name different specs"),
        (b"vmaccord-session 1\n" + b" " * files.FILE_LIMIT, "the file is larger than 8388650 bytes"),
    ],
)
def test_what_is_no_file_of_an_export_is_refused(content: bytes, problem: str) -> None:
    with pytest.raises(InvalidFile, match=problem):
        files.read(content)


def test_a_file_with_a_document_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="not a document of a session: not JSON"):
        files.read(b"vmaccord-session 1\n{\n")


def test_the_largest_document_fits_into_a_file() -> None:
    spare = documents.SIZE_LIMIT - len(documents.write(Spec0()))
    spec = Spec0(guest_ips="x" * spare)
    assert files.read(files.write(spec, to=0)) == spec
