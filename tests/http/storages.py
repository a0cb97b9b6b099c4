"""Which tests of this folder run on which storage: on all, or on those that `--storage` names, with exceptions."""

from collections.abc import Collection, Mapping, Sequence

from tests.support.places import PLACES

# Swift takes its time, and a service over memory is much like one over a folder. Unless they are asked for by name they
# get the modules that move bytes to and fro; the others are about words, databases and clients. moto, the quick bucket,
# is spared those that take minutes and are about what happens above the storage.
SELDOM = {
    "s3-moto": frozenset(
        {
            *("test_archive", "test_download", "test_forms", "test_ranges_wire", "test_s3_redirect", "test_sizes"),
            *("test_upload", "test_upload_hostile"),
        }
    ),
    "s3-swift": frozenset({"test_sizes", "test_archive", "test_s3_redirect"}),
    "memory": frozenset({"test_sizes", "test_archive", "test_forms", "test_ranges_wire"}),
}

# Tests of both databases run on both over a folder; on another storage without the one that does not go with it.
WITHOUT = {"memory": "postgresql", "s3-moto": "sqlite", "s3-swift": "sqlite"}

LOCAL = ("local",)
NOT_MEMORY = ("local", "s3-moto", "s3-swift")
S3 = ("s3-moto", "s3-swift")
NOT_S3 = ("local", "memory")

# Tests, and whole modules, that run on some storages only, by what it is about them.
ONLY: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "files on a disk have modes, links and folders": (LOCAL, ["test_stored_bytes_are_their_owners_alone"]),
    "a folder lies where the file was": (
        LOCAL,
        [
            "test_a_file_with_a_folder_in_its_place_is_500_until_it_is_back",
            "test_the_bytes_go_before_the_row_does",
        ],
    ),
    "a folder is taken away and comes back": (
        LOCAL,
        ["test_without_storage_an_upload_is_503_and_not_asked_for"],
    ),
    "five gigabytes take no room on a disk when nearly all of them are zeros": (
        LOCAL,
        ["test_a_range_in_the_middle_of_a_huge_file_costs_its_bytes"],
    ),
    "a file shrinks while it is open; who reads an object that is replaced goes on with the old one": (
        LOCAL,
        [
            "test_a_file_that_is_cut_while_it_is_sent_ends_in_a_reset",
            "test_no_client_takes_a_part_for_the_whole",
            "test_a_download_that_breaks_behind_nginx_never_looks_whole",
        ],
    ),
    "a bucket does not say how much it holds": (
        NOT_S3,
        [
            "test_a_form_of_more_than_the_disk_holds_is_507_before_the_first_byte",
            "test_more_than_the_disk_holds_is_507_before_the_first_byte",
        ],
    ),
    "a thousand files, which are stored before the limit is hit, are several thousand requests to a bucket": (
        NOT_S3,
        ["test_ten_thousand_files_are_refused_and_soon"],
    ),
    "processes have no memory in common": (
        NOT_MEMORY,
        [
            "test_of_fifty_downloads_at_once_two_replicas_give_one",
            "test_the_place_of_a_killed_replica_is_free_after_its_lease",
        ],
    ),
    "memory is lost with its process": (
        NOT_MEMORY,
        ["test_a_service_that_was_killed_gives_the_place_back_itself"],
    ),
    "an object store answers by itself, and keeps words beside the bytes": (
        S3,
        ["test_s3_redirect", "test_objects_say_which_files_they_are"],
    ),
    "moto looks at no signature": (("s3-swift",), ["test_a_link_cannot_be_changed_into_another"]),
}


def storages_of(module: str, test: str, asked: Sequence[str] | None = None) -> list[str]:
    """The storages that a test runs on; of those `asked` for, if any are."""
    found = [name for name in asked or PLACES if asked or module in SELDOM.get(name, [module])]
    for storages, names in ONLY.values():
        if test in names or module in names:
            found = [name for name in found if name in storages]
    return found


def with_database(storage: str, params: Collection[object]) -> bool:
    """Whether a test with these parameters, a database perhaps among them, runs on a storage."""
    return storage not in WITHOUT or WITHOUT[storage] not in params
