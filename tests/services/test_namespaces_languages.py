"""Texts of every language are found by other forms of their words, through every client."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from treestore.errors import InvalidArgument
from treestore.search.names import LANGUAGES

BOUND_S = 60.0

PROBES = {
    # A sentence, other forms of its words, and words that say nothing (or are not in it).
    "arabic": ("المدارس الجديدة في المدينة تستقبل الطلاب", "مدارس مدينة", "في"),
    "chinese": ("南京市长江大桥是一座桥", "长江 大桥 南京", "市长"),
    "danish": ("Husene i byerne bliver solgt til lærerne", "hus lærer", "i til"),
    "dutch": ("De katten van de buren slapen in de tuinen", "kat buur tuin", "de van in"),
    "english": ("The taxes on companies raised by the ministers", "tax company raising", "the by"),
    "finnish": ("Talojen katot korjattiin ja maalattiin kaupungissa", "talo katto", "ja"),
    "french": ("Les maisons des voisins sont vendues", "maison voisin vendu", "les des"),
    "german": ("Die Häuser und die Straßen der Städte", "Haus STRASSE Stadt", "die und der"),
    "greek": ("Οι νόμοι και οι φόροι των εταιρειών", "ΝΟΜΟΣ φόρος εταιρεία", "και οι των"),
    "hungarian": ("A házakban és az iskolákban tanárok laknak", "ház tanár", "a és az"),
    "italian": ("Le case dei vicini sono vendute", "casa vicino", "le dei sono"),
    "norwegian": ("Husene i byene ble solgt til lærerne", "hus solgt", "i til"),
    "none": ("Suured linnad on kaunid, हिन्दी भी", "LINNAD हिन्दी", "linn हिन"),
    "portuguese": ("As casas dos vizinhos foram vendidas", "casa vizinho", "as dos"),
    "romanian": ("Casele vecinilor au fost vândute", "casă vecin", "au fost"),
    "russian": ("Дома соседей были проданы в городах", "дом сосед город", "были в"),
    "spanish": ("Las casas de los vecinos fueron vendidas", "casa vecino", "las de los"),
    "swedish": ("Husen såldes till lärarna i våras", "hus lärare", "till i"),
    "tamil": ("மரங்கள் மற்றும் வீடுகள் நகரத்தில் உள்ளன", "வீடு நகரம்", "மற்றும் மர"),
    "turkish": ("İlk evler ve ISIRGAN otları şehirde", "ilk ev ısırgan ŞEHİR", "ve isirgan"),
}


async def find(db: Any, words: str, field: str, **options: Any) -> list[int]:
    hits = await db.namespaces.query("texts", text={"query": words, "fields": [field], **options})
    return [hit.id for hit in hits]


async def wait_until_indexed(db: Any, words: str) -> None:
    # Polled, as clients do.
    while (await db.namespaces.explain("texts", text=words)).words.unindexed:  # noqa: ASYNC110
        await trio.sleep(0.05)


async def test_every_language_finds_other_forms_of_a_word(db: Any) -> None:
    assert set(PROBES) == set(LANGUAGES)
    attributes = {
        language: {"type": "string", "full_text": {"language": language}} for language in PROBES
    }
    with trio.fail_after(BOUND_S):
        await db.namespaces.create("texts", {"attributes": attributes})
        texts = {language: text for language, (text, _, _) in PROBES.items()}
        await db.namespaces.upsert("texts", [{"id": 1, "attributes": texts}])
        for _ in range(2):
            for language, (_, words, nothing) in PROBES.items():
                assert await find(db, words, language, mode="all") == [1], language
                for word in words.split():
                    assert await find(db, word, language) == [1], (language, word)
                assert await find(db, nothing, language) == [], language
            await wait_until_indexed(db, "taxes")


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "whole": {"stemming": False, "remove_stopwords": False},
    "folded": {"language": "french", "ascii_folding": True},
    "cased": {"language": "none", "case_sensitive": True},
    "short": {"language": "none", "token_length_max": 5},
    "parts": {"language": "german", "tokenizer": "ngram", "ngram_min": 3, "ngram_max": 4},
    "marks": {"language": "none"},
}


async def test_what_an_attribute_may_be_told_to_do(db: Any) -> None:
    attributes = {
        name: {"type": "string", "full_text": options} for name, options in OPTIONS.items()
    }
    texts = {
        "plain": "the owners",
        "whole": "the owners",
        "folded": "Le café protégé",
        "cased": "Tax",
        "short": "abcdef abcde",
        "parts": "Donaudampfschiff",
        "marks": "हिन्दी भाषा",
    }
    found = [
        *(("plain", "owner"), ("whole", "the"), ("whole", "owners"), ("folded", "cafe")),
        *(("folded", "CAFÉ"), ("cased", "Tax"), ("short", "abcde"), ("parts", "dampf")),
        *(("marks", "हिन्दी"), ("marks", "हिन्*"), ("marks", "हिन्दा~")),
    ]
    missed = [
        *(("plain", "the"), ("whole", "owner"), ("folded", "le"), ("cased", "tax")),
        *(("short", "abcdef"), ("parts", "segel"), ("marks", "हिन")),
    ]
    with trio.fail_after(BOUND_S):
        await db.namespaces.create("texts", {"attributes": attributes})
        await db.namespaces.upsert("texts", [{"id": 1, "attributes": texts}])
        for _ in range(2):
            assert [its for its in found if await find(db, its[1], its[0]) != [1]] == []
            assert [its for its in missed if await find(db, its[1], its[0])] == []
            await wait_until_indexed(db, "owners")


@pytest.mark.parametrize("language", ["klingon", "English", "en", "", 3])
async def test_a_language_that_there_is_not_is_refused_with_those_that_there_are(
    db: Any, language: Any
) -> None:
    full_text = {"language": language}
    with trio.fail_after(BOUND_S):
        with pytest.raises(InvalidArgument) as caught:
            await db.namespaces.create(
                "texts", {"attributes": {"a": {"type": "string", "full_text": full_text}}}
            )
        assert all(name in caught.value.message for name in LANGUAGES)
        assert (await db.namespaces.list()).items == []
