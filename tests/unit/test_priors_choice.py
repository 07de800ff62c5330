"""Which earlier results may be handed to a run: one patient, earlier, final, comparable; others have a reason."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest
from tests.orchestration_detectors import detector_info, result_of
from tests.orchestration_fakes import TENANT

from wetread.core.ports.inference import RunRequest
from wetread.core.ports.studies import StoredInstance
from wetread.core.priors import PatientStudy, PriorCandidate, Priors, choose_priors
from wetread.core.run_identity import input_digest, result_key, run_record
from wetread.core.states import AiState

NOW = PatientStudy("1.9", "HOSPITAL", "19600102", "F", "20260601", "093000")
THEN = replace(NOW, study_uid="1.1", study_date="20260301", study_time="093000")


def earlier(
    study: PatientStudy = THEN, state: AiState = AiState.POSITIVE, version: str = "1.2.3", **changes: object
) -> PriorCandidate:
    request = RunRequest(
        TENANT, study.study_uid, "1.1.1", "ich", version, (), result_key=f"k{study.study_uid}", shadow=False
    )
    return PriorCandidate(study, result_of(request, state, volume_ml=3.0).model_copy(update=changes))


def shadowed(candidate: PriorCandidate) -> PriorCandidate:
    run = candidate.result.run.model_copy(update={"shadow": True})
    return replace(candidate, result=candidate.result.model_copy(update={"run": run}))


def choose(*candidates: PriorCandidate, this: PatientStudy = NOW, shadow: bool = False, limit: int = 3) -> Priors:
    return choose_priors(this, candidates, version="1.2.0", shadow=shadow, limit=limit)


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (earlier(replace(THEN, issuer="OTHER")), "issuer"),
        (earlier(replace(THEN, issuer="")), "issuer"),
        (earlier(replace(THEN, birth_date="19600201")), "birth_date"),
        (earlier(replace(THEN, sex="M")), "sex"),
        (earlier(replace(THEN, study_date="")), "study_date"),
        (earlier(replace(THEN, study_date=NOW.study_date, study_time="")), "study_date"),
        (shadowed(earlier()), "shadow"),
        (earlier(state=AiState.NOT_PROCESSABLE, reason="slice_spacing"), "no_answer"),
        (earlier(preliminary=True), "no_answer"),
        (earlier(version="1.1.9"), "version"),
    ],
)
def test_what_may_not_be_compared_has_its_reason(candidate: PriorCandidate, reason: str) -> None:
    other = earlier(replace(THEN, study_uid="1.2", study_date="20250301"))
    found = choose(candidate, other)
    assert found.left_out == (reason,)
    assert [prior.study_uid for prior in found.results] == ["1.2"], "an older one that may be is"


def test_silence_contradicts_nothing_and_a_shadow_run_may_see_what_shadows_saw() -> None:
    quiet = earlier(replace(THEN, birth_date="", sex=""))
    assert [p.study_uid for p in choose(quiet).results] == ["1.1"]
    assert choose(shadowed(earlier()), shadow=True).left_out == ()
    assert choose(earlier(replace(THEN, sex="?"))).left_out == (), "no sex of the standard says nothing"


def test_newest_first_never_later_and_not_more_than_asked() -> None:
    days = ("20250101", "20260531", "20260601", "20260602", "20260101")
    made = [earlier(replace(THEN, study_uid=f"1.{k}", study_date=day)) for k, day in enumerate(days)]
    sooner = earlier(replace(THEN, study_uid="1.7", study_date="20260601", study_time="0915"))
    found = choose(*made, sooner, limit=3)
    assert [(p.study_uid, p.days) for p in found.results] == [("1.7", 0.01), ("1.1", 1.0), ("1.4", 151.0)]
    assert found.results[0].study_date == date(2026, 6, 1)
    assert found.left_out == (), "what is later is no earlier result and needs no reason"
    assert choose(*made, this=replace(NOW, study_date="")).left_out == ("study_date",) * 5


def test_the_digest_of_an_input_holds_what_was_handed_in_and_nothing_else() -> None:
    one = choose(earlier())
    assert Priors().sealed("d") == "d", "without any it is the digest of the images"
    again = earlier()
    run = again.result.run.model_copy(update={"result_key": "another", "started_at": 9.0})
    finding = again.result.findings[0].model_copy(update={"finding_id": "f2", "tracking_uid": "2.25.9"})
    again = replace(again, result=again.result.model_copy(update={"run": run, "findings": (finding,)}))
    assert choose(again).sealed("d") == one.sealed("d"), "the same values, read again, are the same input"
    larger = finding.model_copy(update={"measurements": (finding.measurements[0].model_copy(update={"value": 3.1}),)})
    changed = replace(again, result=again.result.model_copy(update={"findings": (larger,)}))
    digests = {p.sealed("d") for p in (Priors(), one, choose(changed), Priors(left_out=("sex",)))}
    assert len(digests) == 4


def test_a_run_is_recognised_by_what_it_was_handed_and_says_it() -> None:
    info, image = detector_info(), StoredInstance("1.1.1.1", "1.1.1", None, "h", "1.2")  # type: ignore[arg-type]
    bare = RunRequest(TENANT, "1.9", "1.1.1", "ich", "0.1.0", (image,))
    asked = replace(bare, priors=Priors())
    handed = replace(bare, priors=choose(earlier(), earlier(replace(THEN, study_uid="1.2", sex="M"))))
    keys = [result_key(r, info, {}, engine="e", encoder_version="1") for r in (bare, asked, handed)]
    assert keys[0] == keys[1] != keys[2]
    records = [run_record(r, info, {}, engine="e", encoder_version="1") for r in (bare, asked, handed)]
    assert (records[0].priors, records[0].input_digest) == (None, input_digest((image,)))
    assert records[1].priors is not None
    said = records[2].priors
    assert said is not None
    assert [(p.study_uid, p.result_key) for p in said.results] == [("1.1", "k1.1")]
    assert said.left_out == ("sex",), "never which study: it may be another patient's"
