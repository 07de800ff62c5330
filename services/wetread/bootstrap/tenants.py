"""Reads the file of tenants' limits (YAML)."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from wetread.core.errors import ConfigurationError
from wetread.core.tenants import TenantFile, Tenants


def load_tenants(path: Path | None) -> Tenants:
    """Return the policies of a file; without one nobody is limited. Raises ConfigurationError."""
    if path is None:
        return Tenants()
    try:
        content = YAML(typ="safe").load(path)
        return Tenants(TenantFile.model_validate(content or {}))
    except (OSError, YAMLError) as error:
        msg = f"{path.name} cannot be read: {type(error).__name__}"
        raise ConfigurationError(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        msg = f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ConfigurationError(msg) from error
