"""MNIST from the network, once, into a cache; the library that fetches is loaded when it is needed."""

from __future__ import annotations

from pathlib import Path

from studies.kit.errors import InputError

MIRRORS = ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/")
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def download_mnist(directory: Path | None, mirrors: tuple[str, ...] = MIRRORS) -> Path:
    """Fetch the four files into ``mnist`` below a directory (or the user's cache) and return the directory.

    Files that are there already and have their checksum are not fetched again; a file appears whole or not at all.

    Raises:
        InputError: no mirror answers, or what it sends is not MNIST.
    """
    try:
        import pooch
    except ImportError as error:
        raise InputError("--download needs the package pooch: pip install pooch") from error
    place = directory if directory is not None else Path(pooch.os_cache("elbogap"))
    pooch.get_logger().setLevel("WARNING")
    for name, digest in MD5.items():
        reasons = []
        for mirror in mirrors:
            try:
                pooch.retrieve(mirror + name, known_hash=f"md5:{digest}", fname=name, path=place / "mnist")
                break
            except (OSError, ValueError) as error:  # no connection, no space; another checksum
                reasons.append(f"{mirror}: {str(error).splitlines()[0]}")
        else:
            raise InputError(
                f"{name} could not be fetched ({'; '.join(reasons)}). Put the four MNIST files into a directory and "
                "name it with --data-directory"
            )
    return place
