"""The ``agents`` service."""

from __future__ import annotations

from treestore.stores.agents import recording
from treestore.stores.operation import A, Command, M, Service


class Agents(Service[M, A]):
    """What agents do, recorded in one command; ``metadata`` finds it again."""

    service_name = "agents"

    record_call = Command(recording.record_call)
