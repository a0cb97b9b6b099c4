"""Which tests of this folder run on which storage: on all of them, or on those that `--storage` names, but for what stands here."""

from collections.abc import Sequence

from tests.support.places import PLACES

# Swift takes its time: unless it is asked for by name it gets the modules that move bytes. The others are about words,
# databases and clients.
ON_SWIFT = frozenset({"test_sizes", "test_archive", "test_s3_redirect", "test_upload"})

_LOCAL = ("local",)
_NOT_MEMORY = ("local", "s3-moto", "s3-swift")
_NOT_S3 = ("local", "memory")

_S3 = ("s3-moto", "s3-swift")

_MODES = "modes, links and folders on a disk"
_OPEN = "a file that is open shrinks; an object is only ever replaced, and who reads it goes on with the old one"
_HUGE = "five gigabytes that take no room"
_FULL = "a bucket has no end that could be known"
_FOLDER = "a folder lies where the file was"
_AWAY = "a folder is taken away and comes back"
_SHARED = "two processes have no memory in common"
_THOUSAND = "a thousand files are stored and deleted one after the other before the limit is hit"
_LINKS = "an object store answers by itself"
_SIGNED = "moto looks at no signature"
_METADATA = "objects carry words beside their bytes"
_OUTLIVED = "memory does not outlive its process"

# The tests, and the modules, that run on some storages only, and what it is about them.
ONLY: dict[str, tuple[Sequence[str], str]] = {
    "test_stored_bytes_are_their_owners_alone": (_LOCAL, _MODES),
    "test_a_file_with_a_folder_in_its_place_is_500_until_it_is_back": (_LOCAL, _FOLDER),
    "test_the_bytes_go_before_the_row_does": (_LOCAL, _FOLDER),
    "test_without_storage_an_upload_is_503_and_not_asked_for": (_LOCAL, _AWAY),
    "test_a_range_in_the_middle_of_a_huge_file_costs_its_bytes": (_LOCAL, _HUGE),
    "test_a_file_that_is_cut_while_it_is_sent_ends_in_a_reset": (_LOCAL, _OPEN),
    "test_no_client_takes_a_part_for_the_whole": (_LOCAL, _OPEN),
    "test_a_download_that_breaks_behind_nginx_never_looks_whole": (_LOCAL, _OPEN),
    "test_ten_thousand_files_are_refused_and_soon": (_NOT_S3, _THOUSAND),
    "test_s3_redirect": (_S3, _LINKS),
    "test_a_link_cannot_be_changed_into_another": (("s3-swift",), _SIGNED),
    "test_objects_say_which_files_they_are": (_S3, _METADATA),
    "test_a_form_of_more_than_the_disk_holds_is_507_before_the_first_byte": (_NOT_S3, _FULL),
    "test_more_than_the_disk_holds_is_507_before_the_first_byte": (_NOT_S3, _FULL),
    "test_of_fifty_downloads_at_once_two_replicas_give_one": (_NOT_MEMORY, _SHARED),
    "test_the_place_of_a_killed_replica_is_free_after_its_lease": (_NOT_MEMORY, _SHARED),
    "test_a_service_that_was_killed_gives_the_place_back_itself": (_NOT_MEMORY, _OUTLIVED),
}


def storages_of(module: str, test: str, asked: Sequence[str] | None = None) -> list[str]:
    """The storages that a test runs on; of those `asked` for, if any are."""
    chosen = asked or [name for name in PLACES if name != "s3-swift" or module in ON_SWIFT]
    possible, _ = ONLY.get(test) or ONLY.get(module) or (chosen, "")
    return [name for name in chosen if name in possible]
