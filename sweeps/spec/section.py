"""The form that all sections of a spec share."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the spec: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)
