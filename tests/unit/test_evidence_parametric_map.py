"""Parameter maps as Parametric Map objects: values, padding, units, identity."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from tests.evidence_cases import evidence, headers, positive, without

from wetread.adapters.evidence.encoder import Encoder
from wetread.adapters.evidence.parametric_map import PADDING
from wetread.core.detector import ParameterMap
from wetread.core.errors import InvalidInput
from wetread.core.ports import EncodedObject, EvidenceInput
from wetread.core.ruo import RUO_STATEMENT

SHAPE = (12, 64, 80)


def flow(shape: tuple[int, int, int] = SHAPE) -> ParameterMap:
    values = np.full(shape, np.nan, np.float32)
    values[3:8, 20:40, 20:40] = np.linspace(0, 60, 20, dtype=np.float32)
    return ParameterMap("cerebral_blood_flow", values, "ml/[100]g/min")


def case(*maps: ParameterMap, **changes) -> EvidenceInput:
    return replace(evidence(result=positive(state="measured")), maps=maps or (flow(),), **changes)


def encoded(given: EvidenceInput) -> list[EncodedObject]:
    return [item for item in Encoder().encode(given) if item.role == "pm"]


def test_values_come_back_with_unit_and_quantity() -> None:
    (item,) = encoded(case())
    dataset = dcmread(BytesIO(item.data))
    assert dataset.SOPClassUID == "1.2.840.10008.5.1.4.1.1.30"
    stored = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(-1, 64, 80)
    wanted = np.where(np.isnan(flow().values), PADDING, flow().values)
    frames = [
        float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in dataset.PerFrameFunctionalGroupsSequence
    ]
    assert np.array_equal(stored[np.argsort(frames)], wanted)
    mapping = dataset.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "ml/[100]g/min"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeValue == "113055"
    assert dataset.FloatPixelPaddingValue == PADDING
    assert dataset.ImageComments == RUO_STATEMENT
    assert dataset.PatientID == "P-1"
    assert isinstance(hd.imread(BytesIO(item.data)), hd.Image)


def test_the_same_input_gives_the_same_bytes_and_one_series() -> None:
    both = case(flow(), ParameterMap("tmax", flow().values, "s"))
    one, again = encoded(both), encoded(both)
    assert [item.data for item in one] == [item.data for item in again]
    assert len({item.series_instance_uid for item in one}) == 1
    assert len({item.sop_instance_uid for item in one}) == 2


def test_maps_that_cannot_be_placed_are_left_out() -> None:
    bare = without(headers(), "ImagePositionPatient")
    assert encoded(replace(case(), headers=bare)) == []


@pytest.mark.parametrize("values", [np.zeros((12, 64, 79), np.float32), np.full(SHAPE, -2.0, np.float32)])
def test_a_map_that_contradicts_the_images_is_refused(values) -> None:
    with pytest.raises(InvalidInput):
        encoded(case(ParameterMap("tmax", values, "s")))


def test_a_map_without_any_value_is_all_padding() -> None:
    (item,) = encoded(case(ParameterMap("tmax", np.full(SHAPE, np.nan, np.float32), "s")))
    assert set(np.frombuffer(dcmread(BytesIO(item.data)).FloatPixelData, "<f4")) == {PADDING}
