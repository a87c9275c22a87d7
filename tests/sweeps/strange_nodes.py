"""Answers of nodes that one machine cannot have, in place of `node_report.look`; Ray's workers import this module."""

from collections.abc import Mapping
from typing import Any

from sweeps.nodes.report import look

WORKING_FOLDER = "elsewhere"  # of the second node


def first_with_another_torch(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer truly, but for torch on the first node."""
    found = look(request)
    if request["words"] is not None and not found["working_folder"].endswith(WORKING_FOLDER):
        found["versions"]["torch"] = "1.0.0"
    return found


def each_in_its_own_way(request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer as a first node with another torch, a second without the shared folder, and a head that is broken."""
    if request["words"] is None:
        raise ImportError("libcudart.so.12: cannot open shared object file")
    found = look({**request, "words": None})
    if found["working_folder"].endswith(WORKING_FOLDER):
        return look({**request, "words": "/not mounted/words"})
    return first_with_another_torch(request)
