"""Package the chart for a release: ``python charts/package.py --home URL --image REPOSITORY@sha256:... --out FOLDER``.

The chart in the repository names no site and no image, because none is published: home and sources lie in the reserved
domain ``.example``, images have tags. Who publishes it says where, once, here; the package then holds real addresses
and the digests of all images, as mirrors of air-gapped sites need them (``artifacthub.io/images``). Needs the extra
``dev`` (the Helm SDK).
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import yaml

CHART = Path(__file__).parent / "wetread"
_PINNED = re.compile(r"[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}")
_IMAGES = "artifacthub.io/images"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the package and print its path. Exit code 2: an address or an image that nobody could use."""
    parser = argparse.ArgumentParser(prog="package", description=__doc__)
    parser.add_argument("--home", required=True, help="site of the project")
    parser.add_argument(
        "--source", action="append", default=[], help="where the source is; may be given more than once"
    )
    parser.add_argument("--image", required=True, help="image of wetread, by digest")
    parser.add_argument("--triton", required=True, help="image of Triton, by digest")
    parser.add_argument("--out", type=Path, default=Path("dist"))
    given = parser.parse_args(arguments)
    sources = given.source or [given.home]
    wrong = [url for url in (given.home, *sources) if not _public(url)]
    wrong += [image for image in (given.image, given.triton) if not _PINNED.fullmatch(image)]
    if wrong:
        parser.error(f"{wrong[0]} is no public https address, or no image with its digest")
    images = {"wetread": given.image, "tritonserver": given.triton}
    path = packaged(given.out, home=given.home, sources=sources, images=images)
    sys.stdout.write(f"{path}\n")


def packaged(out: Path, *, home: str, sources: Sequence[str], images: dict[str, str]) -> str:
    """Package a copy of the chart with these addresses and images; return the path of the archive."""
    import helm_python

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "wetread"
        shutil.copytree(CHART, copy)
        metadata = yaml.safe_load((copy / "Chart.yaml").read_text("utf-8"))
        listed = yaml.safe_load(metadata["annotations"][_IMAGES])
        pinned = [{"name": each["name"], "image": images[each["name"]]} for each in listed]
        metadata |= {"home": home, "sources": list(sources)}
        metadata["annotations"][_IMAGES] = yaml.safe_dump(pinned, sort_keys=False)
        (copy / "Chart.yaml").write_text(yaml.safe_dump(metadata, sort_keys=False), "utf-8")
        return str(helm_python.package(str(copy), destination=str(out)))


def _public(url: str) -> bool:
    """Whether an address may lead somewhere: not one of the names reserved by RFC 2606 and RFC 6761."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    reserved = re.search(r"(^|\.)(example(\.(com|net|org))?|test|invalid|localhost)$", host)
    return parts.scheme == "https" and "." in host and reserved is None


if __name__ == "__main__":
    main()
