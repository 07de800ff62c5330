"""Reads ``workflows/*.yaml``: YAML 1.2 (a 1.1 loader reads the key ``on`` as true), errors with file and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from wetread.core.completeness import CompletenessPolicy
from wetread.core.errors import ConfigurationError
from wetread.core.ports.inference import DetectorInfo
from wetread.core.workflow import Workflow, WorkflowError, WorkflowModel, check_workflow, version_fits

Path_ = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


def load_folder(
    folder: Path, detectors: Mapping[str, DetectorInfo], *, extra: Sequence[Path] = ()
) -> tuple[tuple[Workflow, ...], CompletenessPolicy | None]:
    """Return the workflows of a folder, by name, and its completeness policy if it has one; *extra* files are read too.

    Raises ConfigurationError with ``file:line: what`` for the first fault.
    """
    if not folder.is_dir():
        msg = f"{folder.name}: no such folder of workflows"
        raise ConfigurationError(msg)
    found: dict[str, Workflow] = {}
    policy: CompletenessPolicy | None = None
    for file in [*sorted(folder.glob("*.yaml")), *extra]:
        content = read_yaml(file)
        if "completeness" in content:
            policy = _model(file, content, CompletenessPolicy, ("completeness",))
            continue
        workflow = load_workflow(file, content)
        bind(workflow, detectors, file, content)
        if workflow.name in found:
            raise _error(file, content, ("workflow",), f"workflow {workflow.name} is declared twice")
        found[workflow.name] = workflow
    return tuple(found[name] for name in sorted(found)), policy


def read_yaml(file: Path) -> CommentedMap:
    """Return the top-level mapping of a YAML 1.2 file with its line marks. Raises ConfigurationError."""
    try:
        content = YAML(typ="rt").load(file.read_text(encoding="utf-8"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        msg = f"{file.name}:{line}: {error.problem}"
        raise ConfigurationError(msg) from error
    except (YAMLError, UnicodeDecodeError, OSError) as error:
        msg = f"{file.name}:1: cannot be read as YAML: {type(error).__name__}"
        raise ConfigurationError(msg) from error
    if not isinstance(content, CommentedMap):
        msg = f"{file.name}:1: a mapping is expected"
        raise ConfigurationError(msg)
    return content


def load_workflow(file: Path, content: CommentedMap | None = None) -> Workflow:
    """Return one checked workflow. Raises ConfigurationError with file and line."""
    content = read_yaml(file) if content is None else content
    model = _model(file, content, WorkflowModel, ())
    try:
        return check_workflow(model)
    except WorkflowError as error:
        raise _error(file, content, error.where, error.detail) from error


def bind(workflow: Workflow, detectors: Mapping[str, DetectorInfo], file: Path, content: CommentedMap) -> None:
    """Check that every detector is installed in an accepted version and knows its parameters."""
    for detector, task in workflow.detectors.items():
        spec = workflow.model.tasks[task]
        if spec.external:
            continue
        info = detectors.get(detector)
        if info is None:
            offered = ", ".join(sorted(detectors)) or "none"
            raise _error(file, content, ("tasks", task, "uses"), f"unknown detector {detector!r}; installed: {offered}")
        if not version_fits(info.version, spec.version_range):
            message = f"detector {detector} is installed as {info.version}, not {spec.version_range}"
            raise _error(file, content, ("tasks", task, "uses"), message)
        unknown = sorted(set(spec.parameters) - set(info.manifest.parameters))
        if unknown:
            message = f"detector {detector} has no parameter {unknown[0]!r}"
            raise _error(file, content, ("tasks", task, "with", unknown[0]), message)


def _model(file: Path, content: CommentedMap, model: type[Model], prefix: Path_) -> Model:
    value: Any = content
    for key in prefix:
        value = value[key]
    try:
        return model.model_validate(plain(value))
    except ValidationError as error:
        first = error.errors()[0]
        where = (*prefix, *first["loc"])
        raise _error(file, content, where, f"{'.'.join(map(str, where))}: {first['msg']}") from error


def plain(value: Any) -> Any:
    """Return YAML content without the loader's marks."""
    if isinstance(value, CommentedMap):
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, CommentedSeq):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    for kind in (str, int, float):  # ruamel marks scalars with sub-classes of these
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def _error(file: Path, content: CommentedMap, where: Path_, message: str) -> ConfigurationError:
    return ConfigurationError(f"{file.name}:{_line(content, where)}: {message}")


def _line(content: CommentedMap, where: Path_) -> int:
    """Return the line (from 1) of the deepest part of *where* that is in the file."""
    node: Any = content
    line = 0
    for key in where:
        if isinstance(node, CommentedMap) and key in node:
            line = node.lc.key(key)[0]
        elif isinstance(node, CommentedSeq) and isinstance(key, int) and key < len(node):
            line = node.lc.item(key)[0]
        else:
            break
        node = node[key]
    return line + 1
