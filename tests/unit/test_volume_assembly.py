"""Volume assembly from synthetic objects: every odd header of the specification's list."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from wetread.core.dicom.volume import assemble
from wetread.core.errors import NotProcessable
from wetread.core.manifest import LossyPolicy, SeriesNeeds
from wetread.testing.sections import ct_plane, enhanced, part10


class NoDecoder:
    """These objects are not compressed: a call would be a mistake."""

    def decode(self, frame, transfer_syntax_uid, layout):
        pytest.fail("decoder called for plain pixel data")


class RawDecoder:
    """Stands in for a codec: the 'compressed' frame holds the plain values."""

    def decode(self, frame, transfer_syntax_uid, layout):
        return np.frombuffer(frame[: layout.frame_bytes], "<i2").reshape(layout.rows, layout.columns)


def plane(k, z=None, *, value=None, dtype=np.int16, **attributes):
    stored = np.full((4, 6), 1024 + k if value is None else value, dtype=dtype)
    return ct_plane(stored, (0.0, 0.0, 5.0 * k if z is None else z), number=k + 1, **attributes)


def stack(count=8, **attributes):
    return [plane(k, **attributes) for k in range(count)]


def volume_of(headers, decoder=None, **options):
    return assemble([part10(h) for h in headers], decoder or NoDecoder(), **options)


def reason_of(headers, **options):
    with pytest.raises(NotProcessable) as caught:
        volume_of(headers, **options)
    return caught.value.reason


def test_planes_are_in_order_and_in_hounsfield_units_whatever_the_arrival():
    headers = stack()
    for order in (headers, headers[::-1], headers[3:] + headers[:3]):
        volume = volume_of(order)
        assert volume.voxels.dtype == np.float32
        assert volume.voxels[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
        assert volume.positions_mm.tolist() == [0, 5, 10, 15, 20, 25, 30, 35]
        assert [f.sop_instance_uid for f in volume.frames] == [h.SOPInstanceUID for h in headers]
        assert volume.flags == ()


def test_threads_give_the_same_volume():
    one, many = volume_of(stack(20)), volume_of(stack(20), threads=4)
    assert np.array_equal(one.voxels, many.voxels)


def test_patient_coordinates_follow_the_definition_of_the_volume():
    headers = [plane(k, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]) for k in range(3)]
    for k, header in enumerate(headers):
        header.ImagePositionPatient = [2.0 * k, 10.0, 20.0]
    volume = volume_of(headers)
    row, column = volume.row_direction, volume.column_direction
    point = volume.origins[2] + 3 * volume.pixel_spacing[1] * row + 2 * volume.pixel_spacing[0] * column
    assert volume.normal.tolist() == [-1, 0, 0]
    assert volume.positions_mm.tolist() == [-4, -2, 0]
    assert point.tolist() == [0.0, 11.5, 19.0]


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"])
def test_every_uncompressed_little_endian_syntax_reads_alike(syntax):
    volume = assemble([part10(h, transfer_syntax=syntax) for h in stack()], NoDecoder())
    assert volume.voxels[:, 3, 5].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_big_endian_words_are_swapped():
    headers = [plane(k, dtype=np.dtype(">i2")) for k in range(3)]
    volume = assemble([part10(h, transfer_syntax="1.2.840.10008.1.2.2") for h in headers], NoDecoder())
    assert volume.voxels[:, 0, 0].tolist() == [0, 1, 2]


def test_each_plane_uses_its_own_rescale():
    headers = [plane(0), plane(1, RescaleSlope=2, RescaleIntercept=-2048)]
    volume = volume_of(headers)
    assert volume.voxels[:, 0, 0].tolist() == [0, 2]
    assert volume.flags == ("rescale_varies",)


@pytest.mark.parametrize("missing", [{"RescaleSlope": None}, {"RescaleIntercept": None}, {"RescaleSlope": 0}])
def test_ct_without_a_rescale_is_refused(missing):
    assert reason_of(stack(**missing)) == "rescale_missing"


def test_mr_needs_no_rescale():
    headers = stack(Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    assert volume_of(headers).voxels[:2, 0, 0].tolist() == [1024, 1025]


def test_unsigned_pixels_keep_their_upper_half():
    assert volume_of([plane(0, value=40_000, dtype=np.uint16)]).voxels[0, 0, 0] == 40_000 - 1024


def test_bits_outside_the_stored_ones_are_cut_off():
    overlay = {"BitsStored": 12, "HighBit": 11}
    unsigned = plane(0, value=0x8000 | 1100, dtype=np.uint16, **overlay)
    assert volume_of([unsigned]).voxels[0, 0, 0] == 76
    signed = plane(0, value=0x0FFF, dtype=np.int16, RescaleIntercept=0, **overlay)
    assert volume_of([signed]).voxels[0, 0, 0] == -1
    shifted = plane(0, value=1100 << 4, dtype=np.uint16, BitsStored=12, HighBit=15)
    assert volume_of([shifted]).voxels[0, 0, 0] == 76


def test_monochrome1_is_inverted_where_values_have_no_unit():
    xray = {"Modality": "DX", "PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    xray |= {"RescaleSlope": None, "RescaleIntercept": None}
    volume = volume_of([plane(0, value=95, dtype=np.uint16, **xray)])
    assert volume.voxels[0, 0, 0] == 4000
    assert "monochrome1" in volume.flags
    ct = volume_of([plane(0, PhotometricInterpretation="MONOCHROME1")])
    assert ct.voxels[0, 0, 0] == 0


@pytest.mark.parametrize(
    ("value", "padding", "intercept"), [(-1500, -1500, 0), (-2000, 63536, -1024), (-2000, None, -1024)]
)
def test_ct_padding_is_air(value, padding, intercept):
    vr = {"PixelPaddingValue": padding if padding is None or padding < 0 else padding - 65536}
    volume = volume_of([plane(0, value=value, RescaleIntercept=intercept, **vr)])
    assert volume.voxels.min() == volume.voxels.max() == -1024


def test_ct_padding_inside_the_tissue_range_does_not_eat_tissue():
    volume = volume_of([plane(0, value=0, RescaleIntercept=0, PixelPaddingValue=0)])
    assert volume.voxels[0, 0, 0] == 0
    assert "padding_ambiguous" in volume.flags


def test_ct_padding_above_every_tissue_is_air():
    stored = np.array([[0, 65535], [1024, 1030]], dtype=np.uint16)
    header = ct_plane(stored, (0, 0, 0))
    header.add_new("PixelPaddingValue", "US", 65535)
    assert volume_of([header]).voxels[0].tolist() == [[-1024, -1024], [0, 6]]


def test_mr_padding_range_becomes_the_lowest_valid_value():
    stored = np.array([[0, 3], [50, 90]], dtype=np.uint16)
    header = ct_plane(stored, (0, 0, 0), Modality="MR", RescaleSlope=None, RescaleIntercept=None)
    header.add_new("PixelPaddingValue", "US", 0)
    header.add_new("PixelPaddingRangeLimit", "US", 5)
    assert volume_of([header]).voxels[0].tolist() == [[50, 50], [50, 90]]


def test_a_modality_lut_replaces_slope_and_intercept():
    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [4, 10, 16])
    lut.add_new("LUTData", "US", [100, 200, 300, 400])
    lut.ModalityLUTType = "US"
    stored = np.array([[0, 10], [12, 99]], dtype=np.uint16)
    header = ct_plane(stored, (0, 0, 0), Modality="DX", RescaleSlope=None, RescaleIntercept=None)
    header.ModalityLUTSequence = Sequence([lut])
    assert volume_of([header]).voxels[0].tolist() == [[100, 100], [300, 400]]
    lut.LUTDescriptor = [9, 10, 16]
    assert reason_of([header]) == "decode_error"


def test_of_duplicates_the_latest_acquisition_is_read():
    repeat = plane(3, value=2000, AcquisitionNumber=2, series="again")
    volume = volume_of([*stack(), repeat])
    assert len(volume.voxels) == 8
    assert volume.voxels[3, 0, 0] == 976
    assert "duplicates_dropped" in volume.flags


def test_localizers_other_orientations_and_unplaced_images_are_left_out_and_said_so():
    scout = plane(30, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    coronal = plane(31, ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    lost = plane(32, ImagePositionPatient=None)
    volume = volume_of([scout, coronal, *stack(), lost])
    assert len(volume.voxels) == 8
    assert set(volume.flags) == {"localizers_left_out", "other_orientations_left_out", "unplaced_images_left_out"}


def test_frames_of_reference_are_flagged_not_trusted():
    assert volume_of(stack(FrameOfReferenceUID=None)).flags == ("frame_of_reference_missing",)
    different = [plane(k, FrameOfReferenceUID=f"1.2.{k}") for k in range(8)]
    assert volume_of(different).flags == ("frame_of_reference_inconsistent",)


def test_spacing_and_thickness_tags_are_not_trusted():
    volume = volume_of(stack(SpacingBetweenSlices=21.09, SliceThickness=0.6))
    assert volume.weights_mm.tolist() == [5.0] * 8
    assert volume.voxel_volumes_ml[0] == pytest.approx(5 * 0.25 / 1000)


@pytest.mark.parametrize(
    ("heights", "needs", "reason"),
    [
        ([0, 5, 10, 20], SeriesNeeds(max_step_mm=8), "missing_slices"),
        ([0, 5, 10, 20], SeriesNeeds(max_step_ratio=1.5), "missing_slices"),
        ([0, 5, 10, 15], SeriesNeeds(max_step_mm=3), "slice_spacing"),
        ([0, 5, 10, 15], SeriesNeeds(min_slices=5), "missing_slices"),
        ([0, 5, 10, 15], SeriesNeeds(coverage_mm=30), "incomplete_coverage"),
    ],
)
def test_geometry_that_the_manifest_refuses(heights, needs, reason):
    headers = [plane(k, z) for k, z in enumerate(heights)]
    assert reason_of(headers, needs=needs) == reason


def test_a_hole_within_the_limit_is_bridged_and_flagged():
    headers = [plane(k, z) for k, z in enumerate([0, 5, 10, 20, 25])]
    volume = volume_of(headers, needs=SeriesNeeds(max_step_mm=12.5))
    assert volume.flags == ("irregular_spacing", "holes_bridged")
    assert volume.weights_mm.tolist() == [5, 5, 7.5, 7.5, 5]


def test_too_much_tilt_is_refused():
    tilted = [plane(k, ImageOrientationPatient=[1, 0, 0, 0, 0.8, -0.6]) for k in range(5)]
    assert volume_of(tilted).tilt_deg == pytest.approx(36.87, abs=0.01)
    assert reason_of(tilted, needs=SeriesNeeds(max_tilt_deg=30)) == "gantry_tilt"


def test_scattered_orientations_are_refused():
    faces = [[1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1]]
    headers = [plane(k, ImageOrientationPatient=faces[k % 3]) for k in range(9)]
    assert reason_of(headers, needs=SeriesNeeds(min_slices=6)) == "mixed_orientation"
    assert reason_of(headers[1:3], needs=SeriesNeeds(orientation="axial")) == "mixed_orientation"


def test_no_position_at_all_is_no_geometry():
    assert reason_of(stack(ImagePositionPatient=None)) == "no_geometry"
    assert reason_of(stack(ImageOrientationPatient=[0, 0, 0, 0, 0, 0])) == "no_geometry"


def test_truncated_or_missing_pixels_are_a_decode_error():
    whole = part10(plane(0))
    with pytest.raises(NotProcessable, match="truncated") as caught:
        assemble([whole[:-10]], NoDecoder())
    assert caught.value.reason == "decode_error"
    assert reason_of([plane(0, PixelData=None)]) == "decode_error"


@pytest.mark.parametrize("data", [b"", b"not DICOM at all", b"\0" * 128 + b"DICM", b"\0" * 400])
def test_what_is_not_dicom_is_a_decode_error(data):
    with pytest.raises(NotProcessable) as caught:
        assemble([data], NoDecoder())
    assert caught.value.reason == "decode_error"


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "not_grayscale"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "not_grayscale"),
        ({"BitsAllocated": 12}, "decode_error"),
        ({"BitsStored": 17}, "decode_error"),
        ({"Rows": 0}, "decode_error"),
        ({"Rows": 60000, "Columns": 60000}, "too_large"),
    ],
)
def test_images_that_no_section_stack_has(attributes, reason):
    assert reason_of([plane(0, **attributes)]) == reason


def test_lossy_compression_is_flagged_or_refused_by_ratio():
    lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": [4, 12]}
    assert volume_of(stack(**lossy), lossy=LossyPolicy(max_ratio=15)).flags == ("lossy",)
    assert volume_of(stack(**lossy), lossy=LossyPolicy(flag=False)).flags == ()
    assert reason_of(stack(**lossy), lossy=LossyPolicy(max_ratio=10)) == "lossy_not_allowed"
    assert reason_of(stack(**lossy), lossy=LossyPolicy(allowed=False)) == "lossy_not_allowed"


def test_an_enhanced_object_gives_all_its_planes_with_their_own_groups():
    planes = np.stack([np.full((4, 6), 1024 + k, dtype=np.int16) for k in range(5)])
    origins = [(0, 0, z) for z in (20.0, 15.0, 0.0, 5.0, 10.0)]
    header = enhanced(planes, origins, slopes=[1, 1, 1, 1, 2])
    volume = volume_of([header])
    assert volume.voxels[:, 0, 0].tolist() == [2, 3, 1028 * 2 - 1024, 1, 0]
    assert [f.frame for f in volume.frames] == [3, 4, 5, 2, 1]
    assert volume.weights_mm.tolist() == [5.0] * 5


def test_multi_frame_without_functional_groups_has_no_geometry():
    cine = ct_plane(np.zeros((3, 4, 6), np.int16), (0, 0, 0), NumberOfFrames=3, ImagePositionPatient=None)
    assert reason_of([cine]) == "no_geometry"


def test_compressed_frames_go_through_the_decoder():
    headers = stack(3)
    for header in headers:
        header.PixelData = encapsulate([header.PixelData])
    objects = [part10(h, transfer_syntax="1.2.840.10008.1.2.4.70") for h in headers]
    assert assemble(objects, RawDecoder()).voxels[:, 0, 0].tolist() == [0, 1, 2]
    with pytest.raises(NotProcessable) as caught:
        assemble([objects[0][:-60]], RawDecoder())
    assert caught.value.reason == "decode_error"


def test_a_decoder_that_returns_another_size_is_not_believed():
    class Wrong:
        def decode(self, frame, transfer_syntax_uid, layout):
            return np.zeros((2, 2), np.int16)

    header = plane(0)
    header.PixelData = encapsulate([header.PixelData])
    with pytest.raises(NotProcessable) as caught:
        assemble([part10(header, transfer_syntax="1.2.840.10008.1.2.4.70")], Wrong())
    assert caught.value.reason == "decode_error"
