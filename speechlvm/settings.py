"""The base of all settings: strict, closed classes checked by pydantic."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Settings without unknown keys, implicit conversions, infinite numbers or changes after construction."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())
