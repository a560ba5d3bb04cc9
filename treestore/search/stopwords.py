"""Stop words of the languages for which the search library brings none.

Words that carry next to no meaning: articles, pronouns, conjunctions, prepositions and forms of
"to be" and "to have". Short lists on purpose: a rare word that is missing here does little harm,
one too many cannot be found.
"""

from __future__ import annotations

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
