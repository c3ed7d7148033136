"""Where the pictures of bazaar128 come from: all addresses, licences and checksums stand here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """An archive.

    Args:
        sha256: of the archive, where its bytes are fixed.
        contents_sha256: of the members that are used (`archives.contents_digest`), where the archive is packed afresh for
            each download.
        pictures: how many there are of the classes that are used, those that are left out included.
    """

    name: str
    url: str
    file_name: str
    pictures: int
    license: str
    license_url: str
    home: str
    author: str | None = None
    sha256: str | None = None
    contents_sha256: str | None = None


SOURCES = (
    Source(
        name="flowers",
        url="https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
        file_name="flower_photos.tgz",
        pictures=3670,
        license="CC BY 2.0",
        license_url="https://creativecommons.org/licenses/by/2.0/",
        home="https://www.tensorflow.org/datasets/catalog/tf_flowers",
        # Published by TensorFlow Datasets in tensorflow_datasets/url_checksums/tf_flowers.txt (228,813,984 bytes).
        sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
    ),
    # GitHub packs archives afresh, so their bytes may change; what they hold at a commit does not. The two digests below
    # were computed from clones at these commits.
    Source(
        name="grocery",
        url="https://github.com/marcusklasson/GroceryStoreDataset/archive/fc80ba90f803d79d0383df52c5a4ac5de99ff6fc.zip",
        file_name="GroceryStoreDataset-fc80ba9.zip",
        pictures=3676,
        license="MIT",
        license_url="https://github.com/marcusklasson/GroceryStoreDataset/blob/master/LICENSE",
        home="https://github.com/marcusklasson/GroceryStoreDataset",
        author="Marcus Klasson et al.",
        contents_sha256="3b79bc50253083e3a813727a7567b1bd177d340d11da0baf2cc1d635ff996b44",
    ),
    Source(
        name="clothing",
        url="https://github.com/alexeygrigorev/clothing-dataset/archive/7ed86a9cc56763b6acb35e41cb35184e43a5d218.zip",
        file_name="clothing-dataset-7ed86a9.zip",
        pictures=5163,
        license="CC0 1.0",
        license_url="https://creativecommons.org/publicdomain/zero/1.0/",
        home="https://github.com/alexeygrigorev/clothing-dataset",
        contents_sha256="51d910eaa67a69e0e1d1c98a42ec85ae52928692fec60f9b20eeac18043a036b",
    ),
)
