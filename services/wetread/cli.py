"""The command line. Imports nothing heavy: each command imports what it needs when it runs.

Exit codes: 0 done; 1 the work was done and its outcome is bad (a study failed, a check is red); 2 wrong usage or
input; 3 a server could not be reached or started; 4 interrupted before the end.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wetread.commands.models_app import app as models
from wetread.commands.pathology_app import app as pathology
from wetread.ffrct.commands import app as ffr

if TYPE_CHECKING:
    from wetread.client import Client

app = typer.Typer(
    name="wetread",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help=(
        "A study goes in over DICOMweb, an urgent preliminary read comes out as standard DICOM.\n\n"
        "Research use only. Not a medical device. Not for diagnosis or patient care."
    ),
    epilog="Exit codes: 0 done; 1 bad outcome; 2 wrong usage or input; 3 server not reached; 4 interrupted.",
)


@app.command()
def up(
    host: Annotated[str | None, typer.Option(help="Address to bind (default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 takes a free one (default 8080).")] = None,
    data: Annotated[Path | None, typer.Option(help="Data folder (default ./wetread-data).")] = None,
    dimse_port: Annotated[int | None, typer.Option(help="Also listen for DICOM associations on this port.")] = None,
) -> None:
    """Run everything on this machine: a web process and a worker process, restarted when one dies."""
    from wetread.commands.up import run_up

    raise typer.Exit(run_up(host=host, port=port, data=data, dimse_port=dimse_port))


@app.command()
def serve(
    names: Annotated[list[str], typer.Argument(help="Services, such as gateway worklist, or orchestration.")],
    fd: Annotated[int | None, typer.Option(hidden=True, help="Listening socket handed over by `up`.")] = None,
) -> None:
    """Run the named services in this process (settings from WETREAD_* variables)."""
    from wetread.commands.serve import run_serve

    raise typer.Exit(run_serve(names, fd=fd))


@app.command()
def demo(
    input: Annotated[  # noqa: A002 - the flag's name is part of the contract
        Path | None, typer.Option(help="Folder of DICOM studies; without it phantom head CTs with known truth.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per study and line.")] = False,
    data: Annotated[Path | None, typer.Option(help="Keep the data folder here (default: a temporary one).")] = None,
    keep: Annotated[bool, typer.Option(help="Keep the server running afterwards, to look around.")] = False,
) -> None:
    """Show the main job: send studies over HTTP, wait for the read, print what came back."""
    from wetread.commands.demo import run_demo

    raise typer.Exit(run_demo(folder=input, as_json=json, data=data, keep=keep))


@app.command()
def send(
    folder: Annotated[Path, typer.Argument(help="Folder of DICOM files, searched with its sub-folders.")],
    url: Annotated[str, typer.Option(help="Base URL of the server, such as http://127.0.0.1:8080.")],
    connections: Annotated[int, typer.Option(min=1, max=16, help="Requests at a time.")] = 2,
    api_key: Annotated[str | None, typer.Option(envvar="WETREAD_API_KEY", help="API key of the server.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per study and line.")] = False,
) -> None:
    """Send DICOM files by STOW-RS. Run it again to resume: what the server already holds is not sent twice."""
    from wetread.commands.send import run_send

    raise typer.Exit(run_send(folder, url=url, connections=connections, api_key=api_key, as_json=json))


@app.command()
def detect(
    name: Annotated[str, typer.Argument(help="Detector, such as ich.")],
    folder: Annotated[Path, typer.Argument(help="Folder of DICOM files, searched with its sub-folders.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the label masks (.npz).")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per study and line.")] = False,
) -> None:
    """Run one detector on a folder, without a server."""
    from wetread.commands.detect import run_detect

    raise typer.Exit(run_detect(name, folder, out=out, as_json=json))


@app.command()
def doctor(
    url: Annotated[str | None, typer.Option(help="Also check a running server.")] = None,
    live: Annotated[bool, typer.Option(help="Only ask /livez of the configured port.")] = False,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Check this installation: packages, codecs, detectors, workflows, disk; and a server if given."""
    from wetread.commands.doctor import run_doctor

    raise typer.Exit(run_doctor(url=url, live=live, as_json=json))


@app.command("simulate")
def simulate_(
    arrivals: Annotated[float | None, typer.Option(help="Studies an hour (default 16.2).")] = None,
    readers: Annotated[int | None, typer.Option(help="Readers at a time (default 3).")] = None,
    reading_minutes: Annotated[float | None, typer.Option(help="Mean reading time (default 10).")] = None,
    prevalence: Annotated[float | None, typer.Option(help="Share of positive studies (default 0.12).")] = None,
    sensitivity: Annotated[float | None, typer.Option(help="Of the AI (default 0.95).")] = None,
    specificity: Annotated[float | None, typer.Option(help="Of the AI (default 0.9).")] = None,
    detector: Annotated[str, typer.Option(help="Take both from this detector's card, such as ich.")] = "",
    ai_delay: Annotated[float | None, typer.Option(help="Minutes until a flag counts (default 0).")] = None,
    ai_failure: Annotated[float | None, typer.Option(help="Share without an answer (default 0).")] = None,
    target: Annotated[float | None, typer.Option(help="Wait to keep, minutes (default 60).")] = None,
    studies: Annotated[int | None, typer.Option(help="Length of the run (default 100000).")] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers (default 1).")] = None,
    policies: Annotated[str, typer.Option(help="fifo, strict, guard, bound:MINUTES; by comma.")] = "fifo,strict,guard",
    file: Annotated[Path | None, typer.Option(help="JSON with more: profiles, shifts, reading, history.")] = None,
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Say how long studies would wait for a reader, with and without AI, and what missed positives pay."""
    from wetread.commands.simulate import run_simulate

    given = {
        "arrivals_per_hour": arrivals,
        "readers": readers,
        "reading_minutes": reading_minutes,
        "prevalence": prevalence,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ai_delay": ai_delay,
        "ai_failure": ai_failure,
        "target": target,
        "studies": studies,
        "seed": seed,
    }
    raise typer.Exit(run_simulate(given, file=file, detector=detector, policies=policies, as_json=json))


@app.command()
def capacity(
    studies: Annotated[str, typer.Argument(help="Studies a day; several by comma.")] = "100,1000,10000,100000,1000000",
    peak_factor: Annotated[float | None, typer.Option(help="Busiest hour over the day's mean (default 4.8).")] = None,
    reads: Annotated[float | None, typer.Option(help="How often each image is fetched (default 2).")] = None,
    goal: Annotated[float | None, typer.Option(help="Seconds to a result, 95 % of studies (default 60).")] = None,
    utilisation: Annotated[float | None, typer.Option(help="Busy share of the peak hour (default 0.6).")] = None,
    hot_days: Annotated[float | None, typer.Option(help="Days on hot storage (default 30).")] = None,
    kept_days: Annotated[float | None, typer.Option(help="Days kept in all (default 365).")] = None,
    mix: Annotated[Path | None, typer.Option(help="JSON list of kinds of study (default: MONAI's hour).")] = None,
    costs: Annotated[Path | None, typer.Option(help="Unit costs of your machine (default: those shipped).")] = None,
    gpu: Annotated[str, typer.Option(help="DETECTOR=SECONDS of a GPU per run; several by comma.")] = "",
    json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Say how many pods and how much storage N studies a day need, from measured unit costs."""
    from wetread.commands.capacity import run_capacity

    given = {
        "peak_factor": peak_factor,
        "reads": reads,
        "goal": goal,
        "utilisation": utilisation,
        "hot_days": hot_days,
        "kept_days": kept_days,
    }
    raise typer.Exit(run_capacity(studies, given, mix=mix, costs=costs, gpu=gpu, as_json=json))


viewer = typer.Typer(name="viewer", no_args_is_help=True, help="The DICOM viewer (OHIF) under /viewer.")


@viewer.callback()
def _viewer() -> None:
    """The DICOM viewer (OHIF) under /viewer."""


@viewer.command()
def install(
    into: Annotated[Path | None, typer.Option(help="Folder (default: WETREAD_VIEWER).")] = None,
) -> None:
    """Fetch the prebuilt OHIF package through npm, check its digest, unpack it where `/viewer` serves it."""
    from wetread.commands.viewer import run_install
    from wetread.settings import Settings

    raise typer.Exit(run_install(into or Settings().viewer))


app.add_typer(viewer)

index = typer.Typer(name="index", no_args_is_help=True, help="The study index of the data folder.")


@index.callback()
def _index() -> None:
    """The study index of the data folder."""


@index.command()
def rebuild(
    data: Annotated[Path | None, typer.Option(help="Data folder (default ./wetread-data).")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Change nothing, compare; exit code 1 on a difference.")
    ] = False,
) -> None:
    """Write the study index anew from the stored instances; deletions stay. The server has to be stopped."""
    from wetread.commands.index import run_rebuild

    raise typer.Exit(run_rebuild(data=data, verify=verify))


@index.command()
def reclaim(
    older_than: Annotated[
        str, typer.Option(help="How long ago they went: 168h, 30m; below 1h the server has to be stopped.")
    ] = "168h",
    data: Annotated[Path | None, typer.Option(help="Data folder (default ./wetread-data).")] = None,
) -> None:
    """Erase the bytes of instances that were deleted or replaced a while ago. For good."""
    from wetread.commands.index import run_reclaim

    raise typer.Exit(run_reclaim(data=data, older_than=older_than))


app.add_typer(index)

audit = typer.Typer(
    name="audit", invoke_without_command=True, help="Who accessed what: the audit trail of a data folder."
)


@audit.callback()
def _audit(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Data folder (default WETREAD_DATA).")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant (default: all).")] = None,
    study: Annotated[str | None, typer.Option(help="Only this study or workitem, by UID.")] = None,
    actor: Annotated[str | None, typer.Option(help="Only this credential, by name.")] = None,
    since: Annotated[datetime | None, typer.Option(help="From this local time on.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Before this local time.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object per entry and line.")] = False,
) -> None:
    """Print the audit trail, oldest entry first; the server may be running."""
    if context.invoked_subcommand is not None:
        return
    from wetread.commands.audit import run_audit

    code = run_audit(data=data, tenant=tenant, study=study, actor=actor, since=since, until=until, as_json=json)
    raise typer.Exit(code)


@audit.command("verify")
def audit_verify(
    data: Annotated[Path | None, typer.Option(help="Data folder (default WETREAD_DATA).")] = None,
) -> None:
    """Check the chain of digests: exit code 1 when an entry was changed or taken out."""
    from wetread.commands.audit import run_verify

    raise typer.Exit(run_verify(data=data))


app.add_typer(audit)

db = typer.Typer(name="db", no_args_is_help=True, help="The tables of the database (settings from WETREAD_*).")


@db.callback()
def _db() -> None:
    """The tables of the database (settings from WETREAD_* variables)."""


@db.command("migrate")
def db_migrate() -> None:
    """Create or migrate the tables; may run at any time, also twice at once."""
    from wetread.commands.db import run_migrate

    raise typer.Exit(run_migrate())


@db.command("verify")
def db_verify() -> None:
    """Exit code 1 when the tables are older than this release."""
    from wetread.commands.db import run_verify

    raise typer.Exit(run_verify())


@db.command("backup-done")
def db_backup_done() -> None:
    """Note that a backup was taken: the last step of a backup job. The alert BackupMissing asks for it."""
    from wetread.commands.db import run_backup_done

    raise typer.Exit(run_backup_done())


app.add_typer(db)

storage = typer.Typer(name="storage", no_args_is_help=True, help="The object store's bucket (extra s3).")


@storage.callback()
def _storage() -> None:
    """The object store's bucket (settings from WETREAD_* variables, extra s3)."""


@storage.command("setup")
def storage_setup() -> None:
    """Create the bucket when missing; make it private, encrypted, tiered. Needs an operator's credentials."""
    from wetread.commands.storage import run_setup

    raise typer.Exit(run_setup())


@storage.command("prefetch")
def storage_prefetch(
    studies: Annotated[list[str], typer.Argument(help="Study Instance UIDs.")],
    tenant: Annotated[str, typer.Option(help="Tenant of the studies.")] = "default",
    priors: Annotated[bool, typer.Option(help="The earlier studies of their patients instead.")] = False,
) -> None:
    """Bring studies into the hot storage class and the read cache of this machine."""
    from wetread.commands.storage import run_prefetch

    raise typer.Exit(run_prefetch(studies, tenant=tenant, priors=priors))


app.add_typer(storage)

app.add_typer(models)

rules = typer.Typer(name="rules", no_args_is_help=True, help="Workflow files: what they would do, and their tests.")


@rules.callback()
def _rules() -> None:
    """Workflow files: what they would do, and their tests."""


@rules.command("test")
def rules_test(
    folder: Annotated[Path | None, typer.Argument(help="Folder of workflow files (default: the active ones).")] = None,
    dicom: Annotated[
        Path | None, typer.Option(help="Folder of DICOM files; without it the cases in FOLDER/tests are run.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Arrival, such as 2026-03-01T02:00+01:00 (default: now).")] = None,
    ae: Annotated[str, typer.Option(help="AE title of the sender, for rules that name source.ae.")] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON object per study and line.")] = False,
) -> None:
    """Say which workflow matches each study of a folder and why, without a server; or run the rule cases."""
    from wetread.commands.rules import run_rules_test

    raise typer.Exit(run_rules_test(folder, dicom=dicom, at=at, ae=ae, as_json=json))


tasks = typer.Typer(name="tasks", no_args_is_help=True, help="AI tasks of a running server: look, and try again.")

Url = Annotated[str, typer.Option(help="Base URL of the server.", envvar="WETREAD_URL")]
Key = Annotated[str | None, typer.Option(envvar="WETREAD_API_KEY", help="API key of the server.")]
Json = Annotated[bool, typer.Option("--json", help="The answer of the server as JSON.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")]
Study = Annotated[str, typer.Argument(help="Study Instance UID.")]
Detector = Annotated[str, typer.Argument(help="Detector, such as ich.")]
Reason = Annotated[str, typer.Option(help="Why, for the timeline of the study.")]
_HERE = "http://127.0.0.1:8080"


@tasks.command("list")
def tasks_list(
    url: Url = _HERE,
    state: Annotated[str | None, typer.Option(help="Only this AI state, such as failed; or dead.")] = None,
    limit: Limit = 100,
    api_key: Key = None,
    json: Json = False,
) -> None:
    """List tasks, latest change first."""
    from wetread.commands.tasks import run_list

    raise typer.Exit(run_list(_client(url, api_key), state=state, limit=limit, as_json=json))


@tasks.command("dead")
def tasks_dead(url: Url = _HERE, limit: Limit = 100, api_key: Key = None, json: Json = False) -> None:
    """List what was given up after the last attempt."""
    from wetread.commands.tasks import run_list

    raise typer.Exit(run_list(_client(url, api_key), state="dead", limit=limit, as_json=json))


@tasks.command("show")
def tasks_show(study: Study, detector: Detector, url: Url = _HERE, api_key: Key = None, json: Json = False) -> None:
    """Show one task with everything that happened to it."""
    from wetread.commands.tasks import run_show

    raise typer.Exit(run_show(_client(url, api_key), study, detector, as_json=json))


@tasks.command("retry")
def tasks_retry(
    study: Study,
    detector: Detector,
    url: Url = _HERE,
    reason: Reason = "",
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Try again a task that failed, could not be processed or was cancelled."""
    from wetread.commands.tasks import run_retry

    raise typer.Exit(run_retry(_client(url, api_key), study, detector, reason=reason, as_json=json))


@tasks.command("cancel")
def tasks_cancel(
    study: Study,
    detector: Detector,
    url: Url = _HERE,
    reason: Reason = "",
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Call a waiting or running task off; only a retry starts it again."""
    _operate("cancel", study, detector, url, reason, api_key, as_json=json)


@tasks.command("discard")
def tasks_discard(
    study: Study,
    detector: Detector,
    url: Url = _HERE,
    reason: Reason = "",
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Take a failed task off the dead letters: seen, still failed, never negative."""
    _operate("discard", study, detector, url, reason, api_key, as_json=json)


@tasks.command("rerun")
def tasks_rerun(
    study: Study,
    detector: Detector,
    url: Url = _HERE,
    reason: Reason = "",
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Run again with the model, the parameters and the rules of today."""
    _operate("rerun", study, detector, url, reason, api_key, as_json=json)


@tasks.command("re-encode")
def tasks_reencode(
    study: Study,
    detector: Detector,
    url: Url = _HERE,
    reason: Reason = "",
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Write the DICOM objects of a result again."""
    _operate("re-encode", study, detector, url, reason, api_key, as_json=json)


@tasks.command("re-evaluate")
def tasks_reevaluate(study: Study, url: Url = _HERE, api_key: Key = None, json: Json = False) -> None:
    """Evaluate the rules of today on a study, without reading anything twice."""
    from wetread.commands.tasks import run_reevaluate

    raise typer.Exit(run_reevaluate(_client(url, api_key), study, as_json=json))


@tasks.command("re-notify")
def tasks_renotify(
    after: Annotated[int, typer.Option("--from", min=0, help="Cursor: events after it are delivered again.")],
    url: Url = _HERE,
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Deliver the events after a cursor to the webhooks again."""
    from wetread.commands.tasks import run_renotify

    raise typer.Exit(run_renotify(_client(url, api_key), after, as_json=json))


@app.command()
def explain(
    study: Study,
    url: Url = _HERE,
    every: Annotated[bool, typer.Option("--all", help="Every decision, not only the latest.")] = False,
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Say why a study was decided on as it was, replayed from the recorded facts, beside the rules of today."""
    from wetread.commands.explain import run_explain

    raise typer.Exit(run_explain(_client(url, api_key), study, every=every, as_json=json))


def _operate(
    verb: str, study: str, detector: str, url: str, reason: str, api_key: str | None, *, as_json: bool
) -> None:
    from wetread.commands.tasks import run_operate

    raise typer.Exit(run_operate(_client(url, api_key), verb, study, detector, reason=reason, as_json=as_json))


def _client(url: str, api_key: str | None) -> Client:
    from wetread.client import Client

    return Client(url, api_key)


@ffr.command("ct")
def ffr_ct(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder with a coronary CT angiogram.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.")],
    sbp: Annotated[float | None, typer.Option(help="Systolic pressure, mmHg.")] = None,
    dbp: Annotated[float | None, typer.Option(help="Diastolic pressure, mmHg.")] = None,
    lv_mass: Annotated[float | None, typer.Option(help="Mass of the left ventricle, g.")] = None,
    flow: Annotated[float | None, typer.Option(help="Hyperaemic coronary flow, mL/min.")] = None,
    dicom: Annotated[bool, typer.Option(help="Write SR, SEG and SC objects too.")] = True,
    json: Json = False,
) -> None:
    """Compute CT-derived FFR from a CT angiogram: JSON, pictures, GLB, VTP and DICOM objects."""
    from wetread.commands.ffr_ct import command_ct

    patient = {"sbp_mmhg": sbp, "dbp_mmhg": dbp, "lv_mass_g": lv_mass, "q_hyp_ml_min": flow}
    given = {name: value for name, value in patient.items() if value is not None}
    raise typer.Exit(command_ct(folder, out, {"patient": given}, dicom=dicom, as_json=json))


@ffr.command("phantom")
def ffr_phantom(
    seed: Annotated[int, typer.Option(min=0, help="Seed of the phantom.")],
    out: Annotated[Path, typer.Option(help="Folder for the CT series and truth.json.")],
    size: Annotated[str, typer.Option(help="tiny, ci or full.")] = "ci",
    noise: Annotated[float, typer.Option(min=0, help="Noise, HU.")] = 25.0,
    calcium: Annotated[bool, typer.Option(help="Calcify the lesions.")] = False,
) -> None:
    """Write a synthetic coronary CT angiogram with its truth."""
    from wetread.commands.ffr_ct import command_phantom

    raise typer.Exit(command_phantom(seed, out, size=size, noise_hu=noise, calcium=calcium))


app.add_typer(rules)
app.add_typer(tasks)
app.add_typer(ffr)
app.add_typer(pathology)
