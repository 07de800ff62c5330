"""What a tenant does not take whoever sends it: SOP classes and transfer syntaxes (PS3.18 table I.2-1, 0122 and C122).

Results of our own are no concern of a tenant's rules, and neither is what is stored already.
"""

from __future__ import annotations

from dataclasses import replace

from wetread.core.dicom.transfer_syntax import is_known
from wetread.core.tenants import StoreRules
from wetread.gateway import reasons
from wetread.gateway.prepare import Prepared


def judged(ready: Prepared, rules: StoreRules) -> Prepared:
    """Return *ready*, refused when the rules say so. What is wrong with it anyhow is told first."""
    if ready.outcome.failure_reason is not None or ready.facts is None:
        return ready
    problem = _problem(ready.outcome.sop_class_uid or "", ready.facts.transfer_syntax_uid, rules)
    if problem is None:
        return ready
    reason, comment = problem
    return Prepared(replace(ready.outcome, failure_reason=reason, warning_reason=None, comment=comment))


def _problem(sop_class_uid: str, transfer_syntax_uid: str, rules: StoreRules) -> tuple[int, str] | None:
    taken = rules.sop_classes is None or sop_class_uid in rules.sop_classes
    if not taken or sop_class_uid in rules.refused_sop_classes:
        return reasons.SOP_CLASS_NOT_SUPPORTED, "this SOP class is not taken here"
    if rules.transfer_syntaxes == "known" and not is_known(transfer_syntax_uid):
        return reasons.TRANSFER_SYNTAX_NOT_SUPPORTED, "this transfer syntax is not known here"
    return None
