from protocol import codes
from treestore import errors


def test_codes_are_those_of_the_errors() -> None:
    assert set(errors.BY_CODE) == codes.ALL


def test_every_constant_is_listed() -> None:
    constants = {value for name, value in vars(codes).items() if name.isupper() and name != "ALL"}
    assert constants == codes.ALL
