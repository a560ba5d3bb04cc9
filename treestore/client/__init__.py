"""The TCP client for trio programs."""

from treestore.client.remote import RemoteDatabase, RemoteSnapshot, connect

__all__ = ["RemoteDatabase", "RemoteSnapshot", "connect"]
