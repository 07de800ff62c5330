"""Head-CT phantoms with known bleeds: rendered from a seed, written as real DICOM series.

For the demo, for tests and for training; NumPy and SciPy only. `make` renders one head, seeds are
split by purpose (`SPLITS`), `write_dicom` and `demo_studies` write CT series.
"""

from wetread.testing.phantoms.demo import DemoStudy, demo_studies, thin_phantom
from wetread.testing.phantoms.dicom import Headers, WrittenSeries, write_dicom
from wetread.testing.phantoms.errors import PhantomError, PhantomSeedError, PhantomSpecError
from wetread.testing.phantoms.head import make
from wetread.testing.phantoms.parameters import GENERATOR_VERSION, evidence_id
from wetread.testing.phantoms.seeds import SPLITS, require_split, split_of
from wetread.testing.phantoms.spec import BleedTruth, BleedType, HeadSpec, Phantom
from wetread.testing.phantoms.volume import to_volume

__all__ = [
    "GENERATOR_VERSION",
    "SPLITS",
    "BleedTruth",
    "BleedType",
    "DemoStudy",
    "HeadSpec",
    "Headers",
    "Phantom",
    "PhantomError",
    "PhantomSeedError",
    "PhantomSpecError",
    "WrittenSeries",
    "demo_studies",
    "evidence_id",
    "make",
    "require_split",
    "split_of",
    "thin_phantom",
    "to_volume",
    "write_dicom",
]
