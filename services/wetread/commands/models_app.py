"""``wetread models``: the commands of people who write, measure and import detectors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="models", no_args_is_help=True, help="The installed detectors and their networks.")
Name = Annotated[str, typer.Argument(help="Detector, such as ich.")]


@app.callback()
def _models() -> None:
    """The installed detectors and their networks."""


@app.command("list")
def models_list(
    json: Annotated[bool, typer.Option("--json", help="One JSON object per detector and line.")] = False,
) -> None:
    """Print the installed detectors: version, networks, shadow, evidence."""
    from wetread.commands.models import run_list

    raise typer.Exit(run_list(as_json=json))


@app.command("new")
def models_new(
    name: Annotated[str, typer.Argument(help="Name of the new detector: lower-case letters, digits and '-'.")],
    kind: Annotated[
        str, typer.Option(help="rule (no network) or network (a tiny one, served like any other).")
    ] = "rule",
    into: Annotated[
        Path | None, typer.Option(help="Folder of detectors (default: models/ of this repository).")
    ] = None,
    modality: Annotated[str, typer.Option(help="CT or MR.")] = "CT",
    body_part: Annotated[str, typer.Option(help="Body Part Examined that it reads.")] = "ABDOMEN",
    finding: Annotated[str, typer.Option(help="Coded concept that it finds (wetread.core.codes).")] = "nodule",
    title: Annotated[str, typer.Option(help="Title (default: from finding and modality).")] = "",
) -> None:
    """Make a complete detector folder: it runs, is served, tested and measured; then put your method into it."""
    from wetread.commands.models import run_new

    raise typer.Exit(
        run_new(name, kind=kind, into=into, modality=modality, body_part=body_part, finding=finding, title=title)
    )


@app.command("pin")
def models_pin(folder: Annotated[Path, typer.Argument(help="Detector folder whose code may run.")]) -> None:
    """Write the hash of a folder's detector.py into detectors.sha256 beside it: its code may run from now on."""
    from wetread.commands.models import run_pin

    raise typer.Exit(run_pin(folder))


@app.command("render")
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


@app.command("test")
def models_test(
    name: Name,
    update_golden: Annotated[bool, typer.Option("--update-golden", help="Write the golden case anew instead.")] = False,
    seed: Annotated[int | None, typer.Option(help="Another seed for the golden case; its options stay.")] = None,
    reason: Annotated[str, typer.Option(help="Why the golden case changes.")] = "",
) -> None:
    """Run the contract suite on one detector folder, and the folder's own tests (needs the extra dev)."""
    from wetread.commands.models import run_test

    raise typer.Exit(run_test(name, update_golden=update_golden, seed=seed, reason=reason))


@app.command("deploy")
def models_deploy(
    name: Annotated[str, typer.Argument(help="Name of the model, as in its repository.")],
    storage_uri: Annotated[str, typer.Option(help="Where its rendered repository lies, such as s3://bucket/models/x.")],
    namespace: Annotated[str, typer.Option(help="Namespace of the object.")] = "default",
    runtime: Annotated[str, typer.Option(help="ServingRuntime of Triton.")] = "kserve-tritonserver",
    gpu: Annotated[bool, typer.Option("--gpu", help="One GPU for each pod.")] = False,
    cpu: Annotated[str, typer.Option(help="Requested CPU of a pod.")] = "2",
    memory: Annotated[str, typer.Option(help="Memory of a pod.")] = "4Gi",
    min_replicas: Annotated[int, typer.Option(min=0, help="Fewest pods.")] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="Most pods.")] = 1,
    service_account: Annotated[str, typer.Option(help="Service account that may read the repository.")] = "",
    kubeconfig: Annotated[Path | None, typer.Option(help="Configuration file of kubectl.")] = None,
    context: Annotated[str | None, typer.Option(help="Context in it.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the object, ask nobody.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until it is ready; 0: do not wait.")] = 0.0,
) -> None:
    """Create or update the KServe InferenceService of a model that no chart owns (extra k8s)."""
    from wetread.adapters.inference.inference_service import Serving
    from wetread.commands.models import run_deploy

    serving = Serving(
        model=name,
        storage_uri=storage_uri,
        namespace=namespace,
        runtime=runtime,
        gpu=gpu,
        cpu=cpu,
        memory=memory,
        min_replicas=min_replicas,
        max_replicas=max(min_replicas, max_replicas),
        service_account=service_account,
    )
    raise typer.Exit(run_deploy(serving, kubeconfig=kubeconfig, context=context, dry_run=dry_run, wait_seconds=wait))


@app.command("import")
def models_import(
    source: Annotated[Path, typer.Argument(help="MONAI bundle, ONNX, TorchScript, state dict or Triton repository.")],
    name: Annotated[str, typer.Option(help="Name it gets here: lower-case letters, digits and '-'.")] = "",
    into: Annotated[
        Path | None, typer.Option(help="Folder of third-party detectors (one of WETREAD_DETECTORS).")
    ] = None,
    sha256: Annotated[str, typer.Option(help="Digest that is accepted; shown without --accept.")] = "",
    licence: Annotated[str, typer.Option(help="Licence that is accepted, as SPDX id.")] = "",
    accept: Annotated[bool, typer.Option("--accept", help="Convert and bring it in; without it: only look.")] = False,
    shape: Annotated[str, typer.Option(help="Sizes of one input item, such as 1,96,96,96, if unknown.")] = "",
) -> None:
    """Bring a public or vendor model in: quarantine, licence, isolated conversion, equivalence test, shadow."""
    from wetread.commands.models_import import run_import

    raise typer.Exit(
        run_import(source, name=name, into=into, digest=sha256, licence=licence, accept=accept, shape=shape)
    )


@app.command("evaluate")
def models_evaluate(
    name: Name,
    out: Annotated[Path, typer.Option(help="Folder of cases.csv, metrics.json, card.md and plots; again: resume.")],
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="s0 .. s5 or tune; may be given more than once.")
    ] = None,
    n: Annotated[int, typer.Option(min=1, help="Cases of every set.")] = 40,
    seed: Annotated[int | None, typer.Option(help="First seed (default: the set's own first one).")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Exit code 1 when gates.yaml is not met.")] = False,
) -> None:
    """Measure a detector on its cases with truth: metrics with intervals, subgroups, shift sets, plots."""
    from wetread.commands.models_evaluate import run_evaluate

    raise typer.Exit(run_evaluate(name, sets=sets or ["s0"], n=n, seed=seed, out=out, gate=gate))


@app.command("card")
def models_card(
    name: Name,
    cases: Annotated[Path | None, typer.Option(help="cases.csv of an evaluation (default: the folder's own).")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing: does the card follow from its cases?")
    ] = False,
) -> None:
    """Write model-card.json and README.md anew from the cases that were measured."""
    from wetread.commands.models_evaluate import run_card

    raise typer.Exit(run_card(name, cases=cases, check=check))
