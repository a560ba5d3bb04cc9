"""The formats of medical codes, on real codes and on what becomes of them on the way."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from treestore.tools.coding import CheckedCode
from treestore.tools.icd10 import check_icd10
from treestore.tools.procedures import check_cpt, check_hcpcs, check_modifier

# Of every chapter, and of every length and use of the placeholder, from the tabular list.
REAL_ICD10 = """
A00.0 A02.20 B20 B97.89 C4A.0 C44.1021 C7A.010 C7B.00 D3A.00 D50.9 E11.9 E08.3211 E66.01 F32.A
F10.120 G47.33 G43.011 H40.1110 H21.1X1 H54.413A I10 I63.9 J09.X1 J45.909 K50.011 K35.80 L89.001
M01.X11 M1A.0110 M80.00XA M48.50XD N18.6 O09.A0 O36.80X0 O33.3XX9 O9A.211 P07.30 Q90.9 R40.2110 R51
S00.00XA S52.501B S72.001K S82.001R T07.XXXA T36.0X1A T79.A11A T86.8401 T30.0 T31.10 T87.40 U07.1
V00.01XA V97.33XD W19.XXXA W61.01XA X58.XXXS X32.XXXA Y09 Y35.001A Y92.009 Y99.8 Z00.00 Z3A.20 Z79.4
""".split()  # noqa: SIM905

REAL_CPT = {
    "00100": "Anesthesia",
    "01999": "Anesthesia",
    "10004": "Surgery",
    "64555": "Surgery",
    "70450": "Radiology",
    "80053": "Pathology and Laboratory",
    "90686": "Medicine",
    "97110": "Medicine",
    "99213": "Evaluation and Management",
    "99605": "Medicine",
    "3074F": "Category II",
    "0042T": "Category III",
    "0001U": "Proprietary Laboratory Analyses",
    "0002M": "Multianalyte Assay with Algorithmic Analysis",
}


@pytest.mark.parametrize("code", REAL_ICD10)
def test_real_diagnosis_codes_are_valid(code: str) -> None:
    checked = check_icd10(code)
    assert (checked.valid, checked.code, checked.problems) == (True, code, ())
    assert check_icd10(f" {code.replace('.', '').lower()}\n").code == code


@pytest.mark.parametrize(
    ("given", "problem", "suggested"),
    [
        ("E1", "3 to 7 characters", ()),
        ("S72.001AA", "3 to 7 characters", ("S72.001A",)),
        ("1I0", "first character is a letter", ("I10",)),
        ("IO1", "second character is a digit", ("I01",)),
        ("E1C.9", "third character is a digit", ()),
        ("250.00", "ICD-9-CM", ()),
        ("W19.A", "need a 7th character", ("W19.XXXA",)),
        ("W19XXA", "need a 7th character", ("W19.XXXA",)),
        ("T36.0X1", "need a 7th character", ("T36.0X1A", "T36.0X1D", "T36.0X1S")),
        ("S72.001", "need a 7th character", ("S72.001A", "S72.001D", "S72.001S")),
        ("S72.001L", "letter L", ()),
        ("S72.0O1A", "letter O", ("S72.001A",)),
        ("W19.XXXB", "one of A, D, S", ()),
        ("O36.80XA", "is a digit", ()),
        ("J45.909X", "no code ends in it", ("J45.909",)),
        ("E1.19", "after the third character", ("E11.9",)),
        ("E11..9", "after the third character", ("E11.9",)),
        ("E11.", "after the third character", ("E11",)),
        ("E11,9", "letters and digits", ("E11.9",)),
        ("\u039511.9", "letters and digits", ()),  # A Greek letter.
        ("", "letters and digits", ()),
        ("A" * 1000, "at most 7", ()),
    ],
)
def test_wrong_diagnosis_codes_are_explained(
    given: str, problem: str, suggested: tuple[str, ...]
) -> None:
    checked = check_icd10(given)
    assert not checked.valid
    assert problem in " ".join(checked.problems)
    assert checked.suggested[: len(suggested)] == suggested
    if not suggested:
        assert all(check_icd10(guess).valid for guess in checked.suggested)


@pytest.mark.parametrize(("code", "kind"), REAL_CPT.items())
def test_real_procedure_codes_are_valid(code: str, kind: str) -> None:
    assert check_cpt(code).kind == kind
    with_modifiers = check_cpt(f" {code.lower()}-25-lt ")
    assert with_modifiers.valid
    assert (with_modifiers.code, with_modifiers.modifiers) == (code, ("25", "LT"))
    assert not check_hcpcs(code).valid


@pytest.mark.parametrize(
    ("given", "problem", "suggested"),
    [
        ("02000", "No section", ()),
        ("99700", "No section", ()),
        ("9921O", "five digits", ("99210",)),
        ("0100", "five digits", ("00100",)),
        ("T0042", "HCPCS", ("0042T",)),
        ("J1100", "HCPCS", ()),
        ("9921325", "five digits", ("99213",)),
        ("99213-1", "no modifier", ()),
        ("99213-25-26-27-50-51", "at most 4", ()),
        ("9" * 99, "5 characters", ()),
        ("", "five digits", ()),
    ],
)
def test_wrong_cpt_codes_are_explained(
    given: str, problem: str, suggested: tuple[str, ...]
) -> None:
    checked = check_cpt(given)
    assert not checked.valid
    assert problem in " ".join(checked.problems)
    assert checked.suggested == suggested


def test_level_ii_takes_the_letters_that_are_in_use() -> None:
    valid = {chr(letter) for letter in range(65, 91) if check_hcpcs(f"{chr(letter)}0001").valid}
    assert valid == set("ABCDEGHJKLMPQRSTUV")
    assert check_hcpcs("J11OO").suggested == ("J1100",)
    assert "2003" in check_hcpcs("W1234").problems[0]
    assert check_hcpcs("j1100-jw").modifiers == ("JW",)


def test_modifiers() -> None:
    for code in ("22", "25", "99", "LT", "RT", "E1", "P1", "P6", "1P", "8P", "XS", "GA", "-59"):
        assert check_modifier(code).valid, code
    for code in ("21", "1", "ZZ", "4P", "259", "", "L T X"):
        assert not check_modifier(code).valid, code


ANY_CODE = st.text(max_size=12) | st.from_regex(r"[A-Z0-9.\- ]{0,10}", fullmatch=True)


@given(ANY_CODE)
@example("²11")
@example("A٣0")
def test_whatever_comes_is_answered(given: str) -> None:
    for check in (check_icd10, check_cpt, check_hcpcs, check_modifier):
        checked = check(given)
        assert isinstance(checked, CheckedCode)
        assert checked.valid is not bool(checked.problems)
        for guess in checked.suggested:
            assert check(guess).valid, (given, guess)
        if checked.valid:
            assert checked.code.isascii()
            assert check(checked.code).code == checked.code
