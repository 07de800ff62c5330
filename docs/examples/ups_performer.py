"""A minimal external performer: takes AI tasks from a UPS-RS worklist, in one file, with httpx only.

It shows the whole life of a workitem as IHE AIW-I wants it from a task performer: search (RAD-81), claim (RAD-82),
read the inputs by WADO-RS, report progress (RAD-84), store a result by STOW-RS and complete (RAD-85). The "AI" counts
the bytes of the input instances; put yours into `analyse`.

Usage: python ups_performer.py http://127.0.0.1:8080/dicom-web --label my-worklist [--api-key KEY]

Research use only. Not a medical device. Not for diagnosis or patient care.
"""

from __future__ import annotations

import argparse
import re
import struct
import sys
import uuid
from datetime import UTC, datetime
from typing import Any

import httpx

JSON = {"Content-Type": "application/dicom+json"}
Dataset = dict[str, Any]


def new_uid() -> str:
    """Return a fresh UID (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def now() -> str:
    """Return the current time as a DT value in UTC."""
    return datetime.now(UTC).strftime("%Y%m%d%H%M%S.%f+0000")


def element(vr: str, *values: Any) -> Dataset:
    """Return a DICOM JSON element."""
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return a code sequence item."""
    codes = (("00080100", "SH", value), ("00080102", "SH", scheme), ("00080104", "LO", meaning))
    return {tag: element(vr, text) for tag, vr, text in codes}


def first(dataset: Dataset, tag: str, default: Any = "") -> Any:
    """Return the first value of an element."""
    return (dataset.get(tag, {}).get("Value") or [default])[0]


class Performer:
    """One performer working for one worklist label."""

    def __init__(self, client: httpx.Client, label: str) -> None:
        self.client = client
        self.label = label

    def work_once(self) -> str | None:
        """Perform the first free task; return its UID, None when there is none."""
        query = {"ProcedureStepState": "SCHEDULED", "InputReadinessState": "READY", "WorklistLabel": self.label}
        found = self.client.get("workitems", params=query, headers={"Accept": "application/dicom+json"})
        for workitem in found.raise_for_status().json():
            uid = first(workitem, "00080018")
            lock = new_uid()
            if self.claim(uid, lock):
                self.perform(uid, lock)
                return str(uid)
        return None

    def claim(self, uid: str, lock: str) -> bool:
        """Claim; False: another performer was faster. Whoever knows *lock* owns the task, so keep it."""
        answer = self.change_state(uid, "IN PROGRESS", lock)
        if answer.is_success:
            return True
        if answer.status_code in {400, 404, 409, 410}:
            # C302 with our own lock is our own claim whose answer got lost; C301 is a lost race.
            return bool(answer.json().get("dicom_status") == "C302")
        answer.raise_for_status()
        return False

    def perform(self, uid: str, lock: str) -> None:
        """Do the work of a claimed task; whatever fails ends it as CANCELED with a reason, never silently."""
        started = now()
        try:
            (workitem,) = self.client.get(f"workitems/{uid}").raise_for_status().json()
            instances = self.read_inputs(workitem)
            self.update(uid, lock, {"00741002": element("SQ", {"00741004": element("DS", 50)})})
            outputs = self.store(self.analyse(instances), instances)
        except (httpx.HTTPError, ValueError) as error:
            self.give_up(uid, lock, type(error).__name__)
            return
        performed = {
            "00404019": element("SQ", code("110004", "DCM", "Computer Aided Detection")),
            "00404028": element("SQ", code("sample", "99SAMPLE", "Sample performer")),
            "00404033": element("SQ", *outputs),
            "00404050": element("DT", started),
            "00404051": element("DT", now()),
        }
        self.update(uid, lock, {"00741216": element("SQ", performed)})
        self.change_state(uid, "COMPLETED", lock).raise_for_status()

    def give_up(self, uid: str, lock: str, what: str) -> None:
        """End a task as CANCELED."""
        reason = element("SQ", code("110513", "DCM", "Discontinued for unspecified reason"))
        progress = {"00741006": element("ST", f"failed: {what}"), "0074100E": reason}
        self.update(uid, lock, {"00741002": element("SQ", progress)})
        self.change_state(uid, "CANCELED", lock).raise_for_status()

    def change_state(self, uid: str, state: str, lock: str) -> httpx.Response:
        """Ask for a state of the workitem."""
        body = [{"00081195": element("UI", lock), "00741000": element("CS", state)}]
        return self.client.put(f"workitems/{uid}/state", json=body, headers=JSON)

    def update(self, uid: str, lock: str, dataset: Dataset) -> None:
        """Replace attributes; also the sign of life that keeps the claim."""
        answer = self.client.post(f"workitems/{uid}", params={"transaction-uid": lock}, json=[dataset], headers=JSON)
        answer.raise_for_status()

    def read_inputs(self, workitem: Dataset) -> list[tuple[Dataset, bytes]]:
        """Return (metadata, PS3.10 bytes) of every input instance."""
        read = []
        for item in workitem.get("00404021", {}).get("Value", []):
            series = f"studies/{first(item, '0020000D')}/series/{first(item, '0020000E')}"
            for reference in item.get("00081199", {}).get("Value", []):
                path = f"{series}/instances/{first(reference, '00081155')}"
                metadata = self.client.get(f"{path}/metadata", headers={"Accept": "application/dicom+json"})
                wanted = 'multipart/related; type="application/dicom"; transfer-syntax=*'
                answer = self.client.get(path, headers={"Accept": wanted})
                read.append((metadata.raise_for_status().json()[0], only_part(answer.raise_for_status())))
        if not read:
            raise ValueError("no inputs")
        return read

    def analyse(self, instances: list[tuple[Dataset, bytes]]) -> str:
        """Return the result of the sample analysis."""
        return f"{len(instances)} instances, {sum(len(data) for _, data in instances)} bytes"

    def store(self, result: str, instances: list[tuple[Dataset, bytes]]) -> list[Dataset]:
        """Store the result in a new series of the study; return the items of the output sequence."""
        study, series, sop = str(first(instances[0][0], "0020000D")), new_uid(), new_uid()
        document = basic_text_sr(instances[0][0], series, sop, result)
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = head + document + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        self.client.post(f"studies/{study}", content=body, headers={"Content-Type": kind}).raise_for_status()
        reference = {"00081150": element("UI", BASIC_TEXT_SR), "00081155": element("UI", sop)}
        retrieval = {"00081190": element("UR", f"{self.client.base_url}studies/{study}/series/{series}")}
        return [
            {
                "00081199": element("SQ", reference),
                "0020000D": element("UI", study),
                "0020000E": element("UI", series),
                "0040E020": element("CS", "DICOM"),
                "0040E025": element("SQ", retrieval),
            }
        ]


def only_part(response: httpx.Response) -> bytes:
    """Return the content of a multipart answer of one part."""
    match = re.search(r'boundary="?([^";]+)', response.headers.get("content-type", ""))
    if match is None:
        raise ValueError("not multipart")
    part = response.content.split(b"--" + match.group(1).encode())[1]
    return part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")


# --- a Basic Text SR, written by hand so that nothing but httpx is needed -------------------------------------------

BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
LONG = {"OB", "SQ", "UT"}


def encode(tag: str, vr: str, value: str | bytes) -> bytes:
    """Return one element in Explicit VR Little Endian (PS3.5 7.1.2)."""
    data = value if isinstance(value, bytes) else value.encode()
    data += (b"\0" if vr in {"UI", "OB"} else b" ") * (len(data) % 2)
    head = struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16)) + vr.encode()
    return head + (struct.pack("<HI", 0, len(data)) if vr in LONG else struct.pack("<H", len(data))) + data


def sequence(tag: str, *items: bytes) -> bytes:
    """Return a sequence of encoded items."""
    return encode(tag, "SQ", b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items))


def name_of(value: str, scheme: str, meaning: str) -> bytes:
    """Return a concept name sequence."""
    item = encode("00080100", "SH", value) + encode("00080102", "SH", scheme) + encode("00080104", "LO", meaning)
    return sequence("0040A043", item)


def text_item(concept: bytes, text: str) -> bytes:
    """Return a TEXT content item."""
    relation = encode("0040A010", "CS", "CONTAINS") + encode("0040A040", "CS", "TEXT")
    return relation + concept + encode("0040A160", "UT", text)


def basic_text_sr(source: Dataset, series: str, sop: str, result: str) -> bytes:
    """Return a PS3.10 file with *result* and the research-use statement, in the study of *source*."""
    name = first(source, "00100010", {})
    stamp = datetime.now(UTC)
    date, time = stamp.strftime("%Y%m%d"), stamp.strftime("%H%M%S")
    statement = "Research use only. Not a medical device. Not for diagnosis or patient care."
    result_item = text_item(name_of("121071", "DCM", "Finding"), result)
    comment = text_item(name_of("121106", "DCM", "Comment"), statement)
    dataset = b"".join([
        encode("00080005", "CS", "ISO_IR 192"),
        encode("00080016", "UI", BASIC_TEXT_SR),
        encode("00080018", "UI", sop),
        encode("00080020", "DA", str(first(source, "00080020"))),
        encode("00080023", "DA", date),
        encode("00080030", "TM", str(first(source, "00080030"))),
        encode("00080033", "TM", time),
        encode("00080050", "SH", str(first(source, "00080050"))),
        encode("00080060", "CS", "SR"),
        encode("00080070", "LO", "Sample"),
        encode("00080090", "PN", ""),
        encode("0008103E", "LO", "Sample performer (research use only)"),
        sequence("00081111"),
        encode("00100010", "PN", name.get("Alphabetic", "") if isinstance(name, dict) else str(name)),
        encode("00100020", "LO", str(first(source, "00100020"))),
        encode("00100030", "DA", str(first(source, "00100030"))),
        encode("00100040", "CS", str(first(source, "00100040"))),
        encode("0020000D", "UI", str(first(source, "0020000D"))),
        encode("0020000E", "UI", series),
        encode("00200010", "SH", str(first(source, "00200010"))),
        encode("00200011", "IS", "9900"),
        encode("00200013", "IS", "1"),
        encode("0040A040", "CS", "CONTAINER"),
        name_of("126000", "DCM", "Imaging Measurement Report"),
        encode("0040A050", "CS", "SEPARATE"),
        sequence("0040A372"),
        encode("0040A491", "CS", "COMPLETE"),
        encode("0040A493", "CS", "UNVERIFIED"),
        sequence("0040A730", result_item, comment),
    ])  # fmt: skip
    meta = b"".join([
        encode("00020001", "OB", b"\0\1"),
        encode("00020002", "UI", BASIC_TEXT_SR),
        encode("00020003", "UI", sop),
        encode("00020010", "UI", EXPLICIT_LITTLE_ENDIAN),
        encode("00020012", "UI", "2.25.313023446711111111"),
    ])  # fmt: skip
    return b"\0" * 128 + b"DICM" + encode("00020000", "UL", struct.pack("<I", len(meta))) + meta + dataset


def main() -> int:
    """Perform one task; exit status 0: one was done, 1: nothing to do."""
    parser = argparse.ArgumentParser(description="Perform one task of a UPS-RS worklist.")
    parser.add_argument("url", help="base of the DICOMweb service, such as http://127.0.0.1:8080/dicom-web")
    parser.add_argument("--label", required=True, help="worklist label (0074,1202) to work for")
    parser.add_argument("--api-key", help="sent as a bearer token")
    options = parser.parse_args()
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else {}
    with httpx.Client(base_url=options.url.rstrip("/") + "/", headers=headers, timeout=60.0) as client:
        done = Performer(client, options.label).work_once()
    sys.stdout.write(f"{'performed ' + done if done else 'nothing to do'}\n")
    return 0 if done else 1


if __name__ == "__main__":
    raise SystemExit(main())
