"""The command line. Imports nothing heavy: each command imports what it needs when it runs.

Exit codes: 0 done; 1 the work was done and its outcome is bad (a study failed, a check is red); 2 wrong usage or
input; 3 a server could not be reached or started; 4 interrupted before the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
) -> None:
    """Run everything on this machine: a web process and a worker process, restarted when one dies."""
    from wetread.commands.up import run_up

    raise typer.Exit(run_up(host=host, port=port, data=data))


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


app.add_typer(index)

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

models = typer.Typer(name="models", no_args_is_help=True, help="The networks of the installed detectors.")


@models.callback()
def _models() -> None:
    """The networks of the installed detectors."""


@models.command("render")
def models_render(
    out: Annotated[Path, typer.Option(help="Empty folder for the repository.")],
    target: Annotated[str, typer.Option(help="python (CPU) or onnxruntime (GPU).")] = "onnxruntime",
    only: Annotated[list[str] | None, typer.Option(help="Only this network; may be given more than once.")] = None,
    gpu: Annotated[bool | None, typer.Option(help="Instances on GPU (default: as the target is for).")] = None,
    instances: Annotated[int, typer.Option(min=1, help="Instances of each network.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one inference (target python).")] = 2,
) -> None:
    """Write a complete Triton model repository (extra triton)."""
    from wetread.commands.models import run_render

    raise typer.Exit(run_render(target=target, out=out, only=only or [], gpu=gpu, instances=instances, threads=threads))


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
    reason: Annotated[str, typer.Option(help="Why, for the timeline of the study.")] = "",
    api_key: Key = None,
    json: Json = False,
) -> None:
    """Try again a task that failed, could not be processed or was cancelled."""
    from wetread.commands.tasks import run_retry

    raise typer.Exit(run_retry(_client(url, api_key), study, detector, reason=reason, as_json=json))


def _client(url: str, api_key: str | None) -> Client:
    from wetread.client import Client

    return Client(url, api_key)


app.add_typer(rules)
app.add_typer(tasks)
app.add_typer(ffr)
