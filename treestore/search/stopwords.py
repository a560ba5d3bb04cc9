"""Stop words of the languages for which the search library brings none.

Words that carry next to no meaning: articles, pronouns, conjunctions, prepositions and forms of
"to be" and "to have". Short lists on purpose: a rare word that is missing here does little harm,
one too many cannot be found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

STOP_WORDS: Final[dict[str, str]] = {
    "arabic": (
        "في من على إلى الى عن مع هذا هذه ذلك تلك التي الذي الذين اللذان ما ماذا لا لم لن قد كان "
        "كانت يكون تكون هو هي هم هن أنا انا أنت انت نحن أن ان إن أو او ثم و ف كل كما بعد قبل "
        "بين عند حتى إذا اذا غير لكن هناك هنا أي اي ليس ليست به بها فيه فيها له لها منه منها "
        "عليه عليها"
    ),
    "greek": (
        "ο η το οι τα του της των τον την τους τις ένας μια μία ένα και κι ή είτε αλλά όμως να "
        "θα δεν δε μη μην με σε από για προς κατά μετά παρά αντί χωρίς ως σαν όπως που πως ότι "
        "αν όταν ενώ στο στη στην στον στους στις στα αυτός αυτή αυτό αυτοί αυτές αυτά εκείνος "
        "εκείνη εκείνο εγώ εσύ εμείς εσείς μου σου μας σας είναι ήταν είμαι έχω έχει έχουν είχε"
    ),
    "romanian": (
        "a ai al ale am ar are as au ca că care ce cel cea cei cele cu cum da dacă dar de din "
        "după e ea ei el ele este eu fi fie fost i ia iar în îi îl îmi își îți la le li lor lui "
        "mai mă mi ne nici noi nu o ori pe pentru prin s sa să sale sau se și spre sub sunt "
        "știu te tu un una unei unele unii unor unui va vă voi"
    ),
    "tamil": (
        "ஒரு என்று மற்றும் இந்த இது என்ற கொண்டு என்பது பல ஆகும் அல்லது அவர் நான் உள்ள அந்த இவர் "
        "என முதல் என்ன இருந்து சில என் போன்ற வேண்டும் வந்து இதன் அது அவன் தான் பலரும் என்னும் "
        "மேலும் பின்னர் கொண்ட இருக்கும் தனது உள்ளது போது என்றும் அதன் தன் பிறகு அவர்கள் வரை "
        "அவள் நீ ஆகிய இருந்தது உள்ளன வந்த இருந்த மிகவும் இங்கு மீது ஓர் இவை இந்தக் பற்றி வரும் "
        "வேறு இரு இதில் போல் இப்போது அவரது மட்டும் இந்தப் எனும் மேல் பின் சேர்ந்த ஆகியோர் "
        "எனக்கு இன்னும் அந்தப் அன்று ஒரே மிக அங்கு பல்வேறு"
    ),
    "turkish": (
        "ve veya ya da de ki bu şu o bir için ile gibi kadar daha en çok az her hiç ne nasıl "
        "neden niçin mi mı mu mü değil var yok ben sen biz siz onlar bana sana ona bizim sizin "
        "onların beni seni onu bunu şunu ama fakat ancak çünkü eğer ise ya hem sonra önce "
        "olarak olan olduğu oldu olur diye üzere göre karşı rağmen bazı tüm bütün kendi aynı "
        "şey"
    ),
}

FOLDED_STOP_WORDS: Final[dict[str, str]] = {
    "danish": "pa nar vaere vaeret ogsa sadan saledes",
    "finnish": (
        "eivat mina sina han hanen hanet hanta hanessa hanesta haneen hanella meidat meita meissa "
        "teidat teita teissa heidat heita heissa tama taman tata tassa tasta nama naita sita siina "
        "siita niita niissa mika mita missa mista etta seka"
    ),
    "french": (
        "a etre etes etais etait etions etiez etaient etant meme memes tres apres deja ou la "
        "ca voila fumes futes fut eumes eutes eut des lors"
    ),
    "german": "fur uber konnen konnte wahrend wurde wurden daruber dafur wahrenddessen",
    "hungarian": (
        "altal altalaban amig at arrol azert aztan azutan bar belul egesz egyeb eleg elo eloszor "
        "elott elso en eppen ezert es fole igy ismet jo jol keresztul kivul kozott kozul magat mar "
        "mas masik meg mig miert neha nehany nelkul ossze o ok oket ra sajat szamara talan tehat "
        "tovabb tovabba tobb ugy uj ujra utan utana utolso valo"
    ),
    "italian": "perche piu avro avra e saro sara faro fara cosi gia puo cio",
    "norwegian": "pa sa na nar vaere var bade for ogsa vaert da sann",
    "portuguese": (
        "nao a ja tambem so ate voce voces as nos esta estao ha hao sao sera serao eramos tera "
        "terao teriamos estavamos"
    ),
    "romanian": "",
    "spanish": (
        "mas si tambien mi que el tu mia mio mias mios esta estas estan este esten estare estara "
        "estaran estaria estabamos habeis habre habra habran habria habia habian sere sera seran "
        "seria serian eramos tendre tendra tendran tendria tenia tenian"
    ),
    "swedish": "pa for sa ar da dar nagot fran nar over an har nagon sjalv at nagra var vart vara",
    "turkish": "",
}  # fmt: skip
"""Stop words that have accents, without them: for texts whose accents are taken off."""


def folded_stop_words(language: str, fold: Callable[[str], str]) -> list[str]:
    """What stop words with accents become when the accents are taken off."""
    own = (fold(word) for word in STOP_WORDS.get(language, "").split())
    return sorted({*FOLDED_STOP_WORDS.get(language, "").split(), *own} - {""})
