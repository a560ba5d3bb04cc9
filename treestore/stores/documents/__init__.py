"""Documents: trees of nodes, one for each version of a policy."""

from treestore.stores.documents.check import check_documents
from treestore.stores.documents.markdown import parse_markdown
from treestore.stores.documents.service import Documents

__all__ = ["Documents", "check_documents", "parse_markdown"]
