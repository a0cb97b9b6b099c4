"""Archives against the readers people have: Python's zipfile, Info-ZIP's unzip, 7-Zip and libarchive's bsdtar."""

import io
import os
import shutil
import struct
import subprocess
import tracemalloc
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from file_service import zip as zip_module
from file_service.zip import FORMAT, MAX_NAME_BYTES, Archive, Entry, Piece, layout, unique_names

WHEN = datetime(2024, 2, 29, 13, 37, 43, 999_999, tzinfo=UTC)
FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
BOUNDARIES = [0xFFFFFFFE, 0xFFFFFFFF, 0x100000000]
HEADER, RECORD = 39, 55  # bytes of a local header and of a directory record, without the name
NAMES = ["plain.txt", "with blank.bin", "Grüße.txt", "日本語.txt", "😀 emoji.dat", "עברית", "-dash", "quo'te%41&<b>.md"]
FILES = {name: name.encode() * (number * 50) for number, name in enumerate(NAMES)}  # the first is empty

CHECKS = {"unzip": ["-t"], "zipinfo": ["-v"], "7z": ["t"], "bsdtar": ["-tf"]}
LISTS = {"unzip": ["-Z"], "7z": ["l"], "bsdtar": ["-tvf"]}
PRINTS = {"unzip": ["-p"], "7z": ["e", "-so"], "bsdtar": ["-xOf"]}
READERS = ["zipfile", *PRINTS]


def entry(name: str, data: bytes = b"", modified: datetime = WHEN) -> Entry:
    return Entry(name, len(data), zlib.crc32(data), modified)


def sized(name: str, size: int) -> Entry:
    return Entry(name, size, 0, WHEN)


def assembled(archive: Archive, contents: Sequence[bytes], start: int = 0, stop: int | None = None) -> bytes:
    parts = archive.segments(start, archive.length if stop is None else stop)
    return b"".join(part if isinstance(part, bytes) else contents[part.index][part.start : part.stop] for part in parts)


def zipped(files: dict[str, bytes]) -> bytes:
    archive = layout(entry(name, data) for name, data in files.items())
    data = assembled(archive, [*files.values()])
    assert archive.length == len(data)
    return data


def sparse(path: Path, entries: Iterable[Entry], contents: dict[int, bytes]) -> Path:
    """The archive as a file on disk, with a hole for each piece whose content is not given."""
    archive = layout(entries)
    with path.open("wb") as file:
        for part in archive.segments(0, archive.length):
            if isinstance(part, bytes):
                file.write(part)
            elif part.index in contents:
                file.write(contents[part.index][part.start : part.stop])
            else:
                file.seek(part.stop - part.start, os.SEEK_CUR)
    assert archive.length == path.stat().st_size
    assert path.stat().st_blocks * 512 < 1 << 20, "the file system stores holes"
    return path


def run(tool: str, *arguments: object, expect: int = 0, stdin: bytes = b"", zone: str = "UTC") -> str:
    """What an installed tool prints; skips by name where it is missing."""
    if not (program := shutil.which(tool)):
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [program, *map(str, arguments)],
        input=stdin,
        env={**os.environ, "LC_ALL": "C.UTF-8", "TZ": zone},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == expect, (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout.decode()


def extract(reader: str, path: Path, folder: Path, zone: str = "UTC") -> dict[str, Path]:
    """Files in a new folder by name, as unpacked by one of READERS."""
    folder.mkdir()
    if reader == "zipfile":
        with zipfile.ZipFile(path) as opened:
            opened.extractall(folder)
    elif reader == "7z":
        run("7z", "x", f"-o{folder}", path, zone=zone)
    else:
        run(reader, *{"unzip": ["-q", path, "-d"], "bsdtar": ["-xf", path, "-C"]}[reader], folder, zone=zone)
    return {file.name: file for file in folder.iterdir()}


def zip64_extra(extra: bytes) -> tuple[int, ...] | None:
    """Numbers of the ZIP64 extra field in a header's extra fields, or None where there is no such field."""
    while extra:
        tag, length = struct.unpack_from("<2H", extra)
        if tag == 1:
            return struct.unpack_from(f"<{length // 8}Q", extra, 4)
        extra = extra[4 + length :]
    return None


def local_header(archive: Archive, at: int) -> tuple[int, int, tuple[int, ...] | None]:
    """Version needed, size field and ZIP64 numbers of the local header at an offset."""
    fixed = assembled(archive, [], at, at + 30)
    signature, needed, stored, size, name, extra = struct.unpack("<4sH12xIIHH", fixed)
    assert (b"PK\3\4", stored) == (signature, size)
    return needed, size, zip64_extra(assembled(archive, [], at + 30 + name, at + 30 + name + extra))


def end_records(archive: Archive) -> tuple[bool, tuple[int, int, int]]:
    """Whether there is a ZIP64 end, and the count, size and offset fields of the plain one."""
    tail = assembled(archive, [], max(0, archive.length - 98))
    count, size, offset = struct.unpack_from("<HII", tail, len(tail) - 12)
    assert tail[-22:-18] == b"PK\5\6"
    return tail[:4] == b"PK\6\6" and tail[-42:-38] == b"PK\6\7", (count, size, offset)


# --- The bytes themselves: whoever changes them on purpose raises FORMAT


def test_the_bytes_of_an_archive_are_those_of_this_format() -> None:
    common = [
        "0a00 0008 0000",  # version needed 1.0, flags: name in UTF-8, stored
        "b56c 5d58",  # 13:37:42 on 2024-02-29
        "86a61036 05000000 05000000",  # CRC-32, two sizes
        "0500 0900",  # lengths of name and extra fields
    ]
    name, timestamp = "c3bc2e6162", "5554 0500 01 a788e065"
    expected = [
        *("504b0304", *common, name, timestamp, "68656c6c6f"),
        *("504b0102", "3f03", *common, "0000 0000 0000", "0000a481", "00000000", name, timestamp),
        *("504b0506", "0000 0000 0100 0100", "3c000000", "31000000", "0000"),
    ]
    assert (1, bytes.fromhex("".join(expected))) == (FORMAT, zipped({"ü.ab": b"hello"}))


def test_the_bytes_of_zip64_records_are_those_of_this_format() -> None:
    archive = layout([sized("a", FULL_32), sized("b", 0)])
    size, timestamp = "ffffffff 00000000", "5554 0500 01 a788e065"
    common = "0000 0000 b56c 5d58 00000000 ffffffff ffffffff 0100 1d00"
    directory = FULL_32 + 60 + 40
    offset = (FULL_32 + 60).to_bytes(8, "little").hex()
    b_common = "0000 0000 b56c 5d58 00000000 00000000 00000000 0100"
    expected = [
        *("504b0304", "2d00", common, "61", "0100 1000", size, size, timestamp),
        *("504b0304", "0a00", b_common, "0900", "62", timestamp),
        *("504b0102 3f03 2d00", common, "0000 0000 0000 0000a481 00000000", "61", "0100 1000", size, size, timestamp),
        *(
            "504b0102 3f03 2d00",
            b_common,
            "1500",
            "0000 0000 0000 0000a481 ffffffff",
            "62",
            "0100 0800",
            offset,
            timestamp,
        ),
        *("504b0606 2c00000000000000 3f03 2d00 00000000 00000000", "0200000000000000" * 2),
        *((76 + 68).to_bytes(8, "little").hex(), directory.to_bytes(8, "little").hex()),
        *("504b0607 00000000", (directory + 76 + 68).to_bytes(8, "little").hex(), "01000000"),
        *("504b0506 0000 0000 0200 0200", "90000000", "ffffffff", "0000"),
    ]
    parts = [*archive.segments(0, archive.length)]
    assert parts[1] == Piece(0, 0, FULL_32)
    assert bytes.fromhex("".join(expected)) == b"".join(part for part in parts if isinstance(part, bytes))


# --- Every reader


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "mixed.zip"
    path.write_bytes(zipped(FILES))
    return path


def test_zipfile_reads_every_field(mixed: Path) -> None:
    with zipfile.ZipFile(mixed) as opened:
        assert opened.testzip() is None
        assert {info.filename: opened.read(info) for info in opened.infolist()} == FILES
        for info in opened.infolist():
            assert (info.compress_type, info.create_system) == (zipfile.ZIP_STORED, 3)
            assert info.external_attr == 0o100644 << 16
            assert info.flag_bits == (0 if info.filename.isascii() else 0x800)
            assert info.date_time == (2024, 2, 29, 13, 37, 42)


@pytest.mark.parametrize("tool", CHECKS)
def test_tools_find_no_fault(mixed: Path, tool: str) -> None:
    run(tool, *CHECKS[tool], mixed)


@pytest.mark.parametrize("reader", READERS)
def test_files_unpack_with_their_names_and_bytes(mixed: Path, tmp_path: Path, reader: str) -> None:
    unpacked = extract(reader, mixed, tmp_path / reader)
    assert {name: file.read_bytes() for name, file in unpacked.items()} == FILES


@pytest.mark.parametrize("reader", PRINTS)
def test_files_unpack_with_their_exact_time_in_any_zone(mixed: Path, tmp_path: Path, reader: str) -> None:
    unpacked = extract(reader, mixed, tmp_path / reader, zone="Asia/Tokyo")
    assert {int(file.stat().st_mtime) for file in unpacked.values()} == {int(WHEN.timestamp())}


@pytest.mark.parametrize("reader", PRINTS)
def test_files_unpack_as_readable_and_not_executable(mixed: Path, tmp_path: Path, reader: str) -> None:
    unpacked = extract(reader, mixed, tmp_path / reader)
    assert {oct(file.stat().st_mode & 0o755) for file in unpacked.values()} == {"0o644"}


def test_an_archive_unpacks_while_it_arrives(mixed: Path, tmp_path: Path) -> None:
    run("bsdtar", "-xf", "-", "-C", tmp_path, stdin=mixed.read_bytes())
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == FILES


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    data = zipped({"a": b"intact"}).replace(b"intact", b"broken")
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.testzip() == "a"
    (path := tmp_path / "damaged.zip").write_bytes(data)
    run("unzip", "-t", path, expect=2)


@pytest.mark.parametrize("tool", ["7z", "bsdtar", "unzip"])
def test_an_empty_archive_is_its_end_record(tmp_path: Path, tool: str) -> None:
    data = zipped({})
    assert b"PK\5\6" + bytes(18) == data
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        assert opened.namelist() == []
    (path := tmp_path / "empty.zip").write_bytes(data)
    run(tool, *CHECKS[tool], path, expect=1 if tool == "unzip" else 0)  # unzip warns: "zipfile is empty"


@pytest.mark.parametrize("reader", READERS)
def test_files_of_equal_names_all_unpack(tmp_path: Path, reader: str) -> None:
    names = unique_names(["a.txt", "A.TXT", "a.txt", "a (2).txt"])
    files = {name: str(number).encode() for number, name in enumerate(names)}
    (path := tmp_path / "equal.zip").write_bytes(zipped(files))
    unpacked = extract(reader, path, tmp_path / reader)
    assert {name: file.read_bytes() for name, file in unpacked.items()} == files


# --- Times


@pytest.mark.parametrize(
    ("modified", "dos", "timestamp"),
    [
        pytest.param(datetime(1601, 1, 1, tzinfo=UTC), (1980, 1, 1, 0, 0, 0), None, id="before 1901"),
        pytest.param(datetime(1969, 12, 31, 23, 59, 59, 1, UTC), (1980, 1, 1, 0, 0, 0), -1, id="before 1970"),
        pytest.param(datetime(1979, 12, 31, 23, 59, 59, tzinfo=UTC), (1980, 1, 1, 0, 0, 0), 315532799, id="1979"),
        pytest.param(datetime(1980, 1, 1, 0, 0, 2, tzinfo=UTC), (1980, 1, 1, 0, 0, 2), 315532802, id="1980"),
        pytest.param(
            datetime(2000, 1, 1, 1, tzinfo=timezone(timedelta(hours=2))), (1999, 12, 31, 23, 0, 0), 946681200, id="zone"
        ),
        pytest.param(datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC), (2038, 1, 19, 3, 14, 6), 2**31 - 1, id="31 bits"),
        pytest.param(datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC), (2038, 1, 19, 3, 14, 8), None, id="32 bits"),
        pytest.param(datetime(2107, 12, 31, 23, 59, 59, tzinfo=UTC), (2107, 12, 31, 23, 59, 58), None, id="2107"),
        pytest.param(datetime(2108, 1, 1, tzinfo=UTC), (2107, 12, 31, 23, 59, 58), None, id="2108"),
        pytest.param(datetime.max.replace(tzinfo=UTC), (2107, 12, 31, 23, 59, 58), None, id="9999"),
    ],
)
def test_times_are_utc_and_clamped(modified: datetime, dos: tuple[int, ...], timestamp: int | None) -> None:
    data = assembled(layout([entry("a", b"x", modified)]), [b"x"])
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        (info,) = opened.infolist()
        assert opened.read(info) == b"x"
    assert dos == info.date_time
    assert info.extra == (b"" if timestamp is None else struct.pack("<2HBi", 0x5455, 5, 1, timestamp))
    assert data[31:].startswith(info.extra + b"xPK\1\2"), "the local header has the same"


# --- Ranges


def test_every_range_of_a_small_archive_is_that_slice_of_it() -> None:
    contents = [b"abc", b"", b"defg"]
    archive = layout(map(entry, ["ä", "b", "c"], contents))
    whole = assembled(archive, contents)
    for start in range(len(whole) + 1):
        for stop in range(start, len(whole) + 1):
            assert whole[start:stop] == assembled(archive, contents, start, stop), (start, stop)


@pytest.mark.parametrize("bounds", [(-1, 0), (1, 0), (0, 23), (23, 23), (-2, -1)])
def test_a_range_outside_the_archive_is_refused_at_once(bounds: tuple[int, int]) -> None:
    assert layout([]).length == 22
    with pytest.raises(ValueError, match="is no range of an archive of 22 bytes"):
        layout([]).segments(*bounds)


@st.composite
def archives_with_cuts(draw: st.DrawFn) -> tuple[Archive, int, int, int]:
    """An archive of files of any size, up to many times 4 GiB, and three offsets, most of them beside a seam."""
    sizes = st.one_of(st.integers(0, 5), st.integers(0, 1 << 40), st.sampled_from(BOUNDARIES))
    entries = [sized(name, draw(sizes)) for name in draw(st.lists(st.sampled_from(NAMES), max_size=6))]
    archive = layout(entries)
    seams = [0, archive.length, *archive._headers, *archive._records]
    near = st.tuples(st.sampled_from(seams), st.integers(-60, 60)).map(sum)
    offsets = st.one_of(st.integers(0, archive.length), near.map(lambda at: min(max(at, 0), archive.length)))
    start, middle, stop = sorted(draw(st.tuples(offsets, offsets, offsets)))
    return archive, start, middle, stop


def joined(parts: Iterable[bytes | Piece]) -> list[bytes | Piece]:
    """The same bytes in as few parts as can be."""
    result: list[bytes | Piece] = []
    for part in parts:
        last = result[-1] if result else None
        if isinstance(last, bytes) and isinstance(part, bytes):
            result[-1] = last + part
        elif (
            isinstance(last, Piece) and isinstance(part, Piece) and (last.index, last.stop) == (part.index, part.start)
        ):
            result[-1] = Piece(part.index, last.start, part.stop)
        else:
            result.append(part)
    return result


@settings(deadline=None)
@given(archives_with_cuts())
def test_ranges_that_meet_are_the_range_of_both(case: tuple[Archive, int, int, int]) -> None:
    archive, start, middle, stop = case
    parts = [*archive.segments(start, stop)]
    assert joined(parts) == joined([*archive.segments(start, middle), *archive.segments(middle, stop)])
    assert stop - start == sum(len(part) if isinstance(part, bytes) else part.stop - part.start for part in parts)
    assert all(part if isinstance(part, bytes) else part.start < part.stop for part in parts), "no part is empty"


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=40)), max_size=8), st.data())
def test_any_range_of_any_archive_is_that_slice_of_it(files: list[tuple[str, bytes]], data: st.DataObject) -> None:
    contents = [content for _, content in files]
    archive = layout(entry(name, content) for name, content in files)
    whole = assembled(archive, contents)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    assert archive.length == len(whole)
    assert whole[start:stop] == assembled(archive, contents, start, stop)


# --- ZIP64, exactly where it is needed


@pytest.mark.parametrize("size", BOUNDARIES)
def test_a_size_has_its_zip64_form_from_where_32_bits_are_full(tmp_path: Path, size: int) -> None:
    archive = layout([sized("huge", size)])
    full = size >= FULL_32
    assert local_header(archive, 0) == ((45, FULL_32, (size, size)) if full else (10, size, None))
    path = sparse(tmp_path / "size.zip", [sized("huge", size)], {})
    with zipfile.ZipFile(path) as opened:
        (info,) = opened.infolist()
    assert (size, size, 0) == (info.file_size, info.compress_size, info.header_offset)
    assert (45 if full else 10, (size, size) if full else None) == (info.extract_version, zip64_extra(info.extra))


@pytest.mark.parametrize("offset", BOUNDARIES)
def test_an_offset_has_its_zip64_form_from_where_32_bits_are_full(tmp_path: Path, offset: int) -> None:
    half = offset // 2
    entries = [sized("a", half), sized("b", offset - half - 2 * (HEADER + 1)), sized("c", 3)]
    path = sparse(tmp_path / "offset.zip", entries, {2: b"end"})
    with zipfile.ZipFile(path) as opened:
        info = opened.getinfo("c")
        assert opened.infolist()[1].extract_version == 10
    full = offset >= FULL_32
    assert (offset, 3) == (info.header_offset, info.file_size)
    assert (45 if full else 10, (offset,) if full else None) == (info.extract_version, zip64_extra(info.extra))
    assert local_header(layout(entries), offset) == (10, 3, None)


@pytest.mark.parametrize("size", BOUNDARIES)
@pytest.mark.parametrize("tool", LISTS)
def test_tools_read_a_size_around_32_bits(tmp_path: Path, tool: str, size: int) -> None:
    """The file is the last one, since UnZip 6.0 misreads what follows a file of exactly 4 GiB - 1 in any archive.

    Its getZip64Data takes the true size kept from the record before for the mark of a ZIP64 size.
    """
    path = sparse(tmp_path / "size.zip", [entry("before", b"start"), sized("huge", size)], {0: b"start"})
    assert str(size) in run(tool, *LISTS[tool], path)
    assert run(tool, *PRINTS[tool], path, "before") == "start"


@pytest.mark.parametrize("offset", BOUNDARIES)
@pytest.mark.parametrize("tool", LISTS)
def test_tools_read_a_file_around_32_bits(tmp_path: Path, tool: str, offset: int) -> None:
    half = offset // 2
    entries = [sized("a", half), sized("b", offset - half - 2 * (HEADER + 1)), entry("c", b"end")]
    path = sparse(tmp_path / "offset.zip", entries, {2: b"end"})
    assert run(tool, *PRINTS[tool], path, "c") == "end"


@pytest.mark.parametrize("offset", BOUNDARIES)
def test_the_directory_has_its_zip64_form_from_where_its_offset_is_full(tmp_path: Path, offset: int) -> None:
    half = offset // 2
    entries = [sized("a", half), sized("b", offset - half - 2 * (HEADER + 1))]
    zip64, fields = end_records(layout(entries))
    assert (offset >= FULL_32, (2, 2 * (RECORD + 1), min(offset, FULL_32))) == (zip64, fields)
    with zipfile.ZipFile(sparse(tmp_path / "directory.zip", entries, {})) as opened:
        assert (offset, 2) == (opened.start_dir, len(opened.infolist()))


@pytest.mark.parametrize("size", BOUNDARIES)
def test_the_directory_has_its_zip64_form_from_where_its_size_is_full(size: int) -> None:
    """Four million names of 255 bytes would take minutes to lay out, so this asks for the end records alone."""
    end = zip_module._end_records(1000, 5, 5 + size)
    zip64 = size >= FULL_32
    assert zip64 == end.startswith(b"PK\6\6") == (len(end) == 98)
    assert struct.unpack_from("<HII", end, len(end) - 12) == (1000, min(size, FULL_32), 5)
    assert not zip64 or struct.unpack_from("<4Q", end, 24) == (1000, 1000, size, 5)


@pytest.mark.parametrize("count", [65534, 65535, 65536])
def test_the_count_has_its_zip64_form_from_where_16_bits_are_full(count: int) -> None:
    archive = layout(sized(f"{number:05}", 0) for number in range(count))
    zip64, fields = end_records(archive)
    assert (count >= FULL_16, (min(count, FULL_16), count * (RECORD + 5), count * (HEADER + 5))) == (zip64, fields)
    with zipfile.ZipFile(io.BytesIO(assembled(archive, []))) as opened:
        assert opened.namelist() == [f"{number:05}" for number in range(count)]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    contents = [str(number).encode() for number in range(70_000)]
    archive = layout(entry(f"{number}.txt", content) for number, content in enumerate(contents))
    path = tmp_path_factory.mktemp("zip") / "many.zip"
    path.write_bytes(assembled(archive, contents))
    return path


def test_zipfile_reads_70000_entries(many: Path) -> None:
    with zipfile.ZipFile(many) as opened:
        assert len(opened.namelist()) == 70_000
        assert opened.testzip() is None


@pytest.mark.parametrize("tool", ["unzip", "7z", "bsdtar"])
def test_tools_read_70000_entries(many: Path, tool: str) -> None:
    output = run(tool, *{"unzip": ["-t"], "7z": ["t", "-bb1"], "bsdtar": ["-tf"]}[tool], many)
    assert output.count(".txt") == 70_000
    assert run(tool, *PRINTS[tool], many, "69999.txt") == "69999"


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of more than 4 GiB before, between and after small ones, in a file with holes."""
    sizes = {"first": None, "hole A": 0x1_2345_6789, "second ü": None, "hole B": 0x1_0000_0000, "last": None}
    entries = [entry(name, name.encode()) if size is None else sized(name, size) for name, size in sizes.items()]
    contents = {number: name.encode() for number, name in enumerate(sizes) if not name.startswith("hole")}
    return sparse(tmp_path_factory.mktemp("zip") / "huge.zip", entries, contents)


@pytest.mark.parametrize("tool", PRINTS)
def test_tools_list_files_beyond_4_gib(huge: Path, tool: str) -> None:
    output = run(tool, *LISTS[tool], huge)
    assert [name in output for name in ("first", "hole A", "second ü", "hole B", "last")] == [True] * 5
    assert [str(size) in output for size in (0x1_2345_6789, 0x1_0000_0000)] == [True] * 2


@pytest.mark.parametrize("name", ["first", "second ü", "last"])
@pytest.mark.parametrize("reader", READERS)
def test_files_behind_4_gib_unpack(huge: Path, reader: str, name: str) -> None:
    if reader == "zipfile":
        with zipfile.ZipFile(huge) as opened:
            assert opened.read(name).decode() == name
    else:
        assert name == run(reader, *PRINTS[reader], huge, name)


# --- What it costs


def test_an_archive_takes_a_few_bytes_an_entry_and_its_segments_a_fixed_amount() -> None:
    entries = [sized(f"{number}", number % 2) for number in range(5_000)]
    tracemalloc.start()
    try:
        archive = layout(entries)
        held, peak = tracemalloc.get_traced_memory()
        assert max(held, peak) < 32 * len(entries)
        tracemalloc.reset_peak()
        longest = max(len(part) for part in archive.segments(0, archive.length) if isinstance(part, bytes))
        assert tracemalloc.get_traced_memory()[1] - held < 512 * 1024
    finally:
        tracemalloc.stop()
    assert 64 * 1024 <= longest < 65 * 1024


def test_a_range_makes_only_the_headers_it_touches(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = layout(sized(f"{number:06}", 1000) for number in range(10_000))
    made: list[str] = []

    def spied(maker: Callable[..., bytes]) -> Callable[..., bytes]:
        def spy(entry: Entry, *rest: int) -> bytes:
            made.append(entry.name)
            return maker(entry, *rest)

        return spy

    monkeypatch.setattr(zip_module, "_local_header", spied(zip_module._local_header))
    monkeypatch.setattr(zip_module, "_record", spied(zip_module._record))
    step, record = HEADER + 6 + 1000, RECORD + 6
    assert [*archive.segments(7000 * step + 500, 7000 * step + 600)] == [Piece(7000, 455, 555)]
    assert made == ["007000", "007001"]
    made.clear()
    assert len(assembled(archive, [], 10_000 * step + 9000 * record, 10_000 * step + 9001 * record)) == record
    assert made == ["009000", "009001"]
    made.clear()
    assert assembled(archive, [], archive.length - 22).startswith(b"PK\5\6")
    assert made == []


# --- Entries that cannot be


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/passwd", "a/b", "a\\b", "..\\x", "C:x", "c:", "a\0b", "x" * 256, "ü" * 128, "\ud800"],
)
def test_a_name_that_could_leave_the_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no name|surrogates not allowed"):
        entry(name)


@pytest.mark.parametrize("name", ["...", ".a", "..a", "ab:c", "é:", "x" * 255, "1:x", " "])
def test_a_name_that_only_looks_like_one_is_taken(name: str) -> None:
    with zipfile.ZipFile(io.BytesIO(zipped({name: b"x"}))) as opened:
        assert opened.namelist() == [name]


@pytest.mark.parametrize(("size", "crc32"), [(-1, 0), (0, -1), (0, 1 << 32)])
def test_a_number_out_of_range_is_refused(size: int, crc32: int) -> None:
    with pytest.raises(ValueError, match="out of range"):
        Entry("a", size, crc32, WHEN)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no zone"):
        Entry("a", 0, 0, WHEN.replace(tzinfo=None))


# --- Names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param(["b", "a"], ["b", "a"], id="nothing to do"),
        pytest.param(["a.txt"] * 3, ["a.txt", "a (2).txt", "a (3).txt"], id="equal"),
        pytest.param(["a.txt", "A.TXT"], ["a.txt", "A (2).TXT"], id="case"),
        pytest.param(["Straße", "STRASSE"], ["Straße", "STRASSE (2)"], id="full case folding"),
        pytest.param(["\u00e9", "e\u0301"], ["\u00e9", "e\u0301 (2)"], id="normalization"),
        pytest.param(["\u00c9", "e\u0301"], ["\u00c9", "e\u0301 (2)"], id="case and normalization"),
        pytest.param(["\u1fb4", "\u03b1\u0345\u0301"], ["\u1fb4", "\u03b1\u0345\u0301 (2)"], id="order of marks"),
        pytest.param(["a", "a", "a (2)"], ["a", "a (3)", "a (2)"], id="a later name keeps its own"),
        pytest.param(["a", "a", "A (2)"], ["a", "a (3)", "A (2)"], id="in any case"),
        pytest.param(["a", "a (2)", "a", "a (2)"], ["a", "a (2)", "a (3)", "a (2) (2)"], id="numbered before"),
        pytest.param(["a.tar.gz"] * 2, ["a.tar.gz", "a.tar (2).gz"], id="last extension"),
        pytest.param([".env"] * 2, [".env", ".env (2)"], id="no stem"),
        pytest.param(["a."] * 2, ["a.", "a. (2)"], id="no extension"),
        pytest.param(["a." + "x" * 33] * 2, ["a." + "x" * 33, "a." + "x" * 33 + " (2)"], id="long extension"),
        pytest.param(["C:x", "c_x"], ["C_x", "c_x (2)"], id="drive"),
    ],
)
def test_names_get_numbers(names: list[str], expected: list[str]) -> None:
    assert expected == unique_names(names)


@pytest.mark.parametrize("letter", ["x", "ü", "日", "😀"])
@pytest.mark.parametrize("extension", ["", ".txt", "." + "😀" * 32])
def test_long_names_are_cut_between_characters_and_keep_their_extension(letter: str, extension: str) -> None:
    name = letter * ((MAX_NAME_BYTES - len(extension.encode())) // len(letter.encode())) + extension
    first, *numbered = unique_names([name] * 12)
    assert name == first
    for number, other in enumerate(numbered, 2):
        stem = other.removesuffix(f" ({number}){extension}")
        assert {letter} == {*stem}
        assert MAX_NAME_BYTES - 24 < len(other.encode()) <= MAX_NAME_BYTES


def folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def clashing_names() -> Iterator[st.SearchStrategy[str]]:
    yield st.text("aA.() 23", min_size=1, max_size=8)
    yield st.text("eE\u0301\u00e9\u00c9ßs.ſµμ\u0345ΐ", min_size=1, max_size=6)
    yield st.builds(
        lambda stem, end: stem * (240 // len(stem.encode())) + end,
        st.sampled_from("xX日"),
        st.text("a.2()", max_size=15),
    )


@settings(deadline=None)
@given(st.lists(st.one_of(*clashing_names()), max_size=40))
@example(["a (2)", "a", "A", "a (2)", "a", "a (2) (2)"])
@example(["x" * 239 + " (2)", "x" * 255, "x" * 255, "x" * 254 + "y", "x" * 254 + "Y"])
def test_names_come_out_different_and_those_that_were_stay_as_they_are(names: list[str]) -> None:
    unique = unique_names(names)
    assert len(names) == len({folded(name) for name in unique})
    assert all(len(name.encode()) <= MAX_NAME_BYTES for name in unique)
    seen = set()
    for given_name, name in zip(names, unique, strict=True):
        assert (given_name == name) == (folded(given_name) not in seen)
        seen.add(folded(given_name))


def test_numbers_of_two_long_names_do_not_meet() -> None:
    """One name's extension ends like a number, the other's is too long for one: both may come to `x (2).y (3)`."""
    stem, end = "x" * 217, "y" * 17
    names = [f"{stem}.{end} (3)"] * 2 + [f"{stem} (2).{end}{'z' * 16}"] * 3
    unique = unique_names(names)
    assert unique[1] == f"{stem} (2).{end} (3)"
    assert unique[3:] == [f"{stem} (2).{end} (2)", f"{stem} (2).{end} (4)"]


def test_numbering_takes_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long names that are cut to one stem share its numbers, instead of each counting from 2 again."""
    names = [f"{'a' * 248}{number // 2:06}" for number in range(4000)]
    real, calls = zip_module._folded, 0

    def counted(name: str) -> str:
        nonlocal calls
        calls += 1
        return real(name)

    monkeypatch.setattr(zip_module, "_folded", counted)
    assert len({*unique_names(names)}) == 4000
    assert calls <= 6 * len(names)
