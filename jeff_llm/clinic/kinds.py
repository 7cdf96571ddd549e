"""What a sentence of a vignette is about: kind, organs, age group, sex.

Rules of words, for English: a distractor should look like the evidence beside it, and
a reader should know why it was chosen. A sentence that no rule knows is a symptom.
"""

import re
from typing import Literal, TypeAlias, get_args

__all__ = [
    "KINDS",
    "AgeGroup",
    "Kind",
    "Sex",
    "age_group",
    "ages",
    "kind",
    "match_pronouns",
    "organs",
    "sex",
]

Kind: TypeAlias = Literal[
    "background", "symptom", "examination", "treatment", "diagnosis"
]
Sex: TypeAlias = Literal["female", "male", "unknown"]
AgeGroup: TypeAlias = Literal["infant", "child", "adult", "elder", "unknown"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# In this order: "CT confirms the diagnosis of cancer" is a diagnosis, and "he
# denies drug use" background.
_RULES: tuple[tuple[Kind, str], ...] = (
    ("diagnosis", r"diagnos(?:is|ed)|is suspected|consistent with|suggestive of"),
    (
        "examination",
        r"examin\w*|exam\b|temperature|blood pressure|pulse|respirat\w+ (?:rate|are)|"
        r"vital signs|mm ?hg|laborator\w*|serum|studies show|test(?:s|ing)? (?:is|are|"
        r"shows?|reveals?)|x-?ray|radiograph\w*|ultraso\w+|ct\b|mri\b|tomograph\w*|"
        r"ecg|electrocardiogra\w*|biops\w+|auscultation|palpation|culture|"
        r"(?:shows?|reveals?|demonstrates?)\b|hemoglobin|leukocyte|urinalysis|"
        r"appears (?:pale|ill|tired|fatigued)|bmi\b|oxygen saturation|mg/dl|meq/l|"
        r"\d/5\b|tender\w*|reflexes|(?:is|was|were) found to|sensation|level is",
    ),
    (
        "background",
        r"\d+[- ](?:year|month|week|day)s?[- ]old|past (?:medical|surgical)|"
        r"medical history|family history|(?:mother|father|brother|sister|parents?|"
        r"uncle|aunt) (?:has|had|have|died|was|is)|smok\w+|alcohol|drinks?\b|"
        r"drug use|pack[- ]years?|travel\w*|works? as|lives? (?:in|with|alone)|"
        r"sexually active|allerg\w+|was born|delivered|pregnan\w+",
    ),
    (
        "treatment",
        r"treat\w*|medications?|prescri\w+|therap\w+|surg\w+|operat\w+|"
        r"(?:takes?|taking|started|receiv\w+|given|administer\w*)\b|antibiotic\w*|"
        r"vaccin\w+|immuni[sz]ations?|drug\b|mg (?:daily|twice)",
    ),
)
_KIND: list[tuple[Kind, re.Pattern[str]]] = [
    (kind, re.compile(rf"\b(?:{rule})", re.IGNORECASE)) for kind, rule in _RULES
]

_ORGANS = {
    "heart": r"chest pain|cardi\w+|heart|murmur|palpitation\w*|aort\w+|mitral|ecg|"
    r"coronary|hypertensi\w+|atrial|ventric\w+|edema",
    "lungs": r"cough\w*|dyspnea|shortness of breath|lung\w*|pulmon\w+|pneumo\w+|"
    r"wheez\w+|asthma|bronch\w+|sputum|pleur\w+|breath\w*",
    "digestive": r"abdom\w+|nausea|vomit\w+|diarrhea|stool\w*|bowel|liver|hepat\w+|"
    r"jaundice|gastr\w+|esophag\w+|colon\w*|rect\w+|pancrea\w+|constipation|biliary",
    "nervous": r"headache\w*|seizure\w*|neuro\w+|brain|weakness|numb\w+|reflex\w*|"
    r"crani\w+|gait|tremor\w*|stroke|confus\w+|spin\w+|cerebr\w+|consciousness|"
    r"ataxi\w+|parkinson\w*|dement\w+|intellectual|developmental delay",
    "mind": r"depress\w+|anxi\w+|psych\w+|hallucinat\w+|delusion\w*|suicid\w+|mood|"
    r"sleep\w*|behavio\w+|schizo\w+|panic",
    "kidney": r"urin\w+|renal|kidney\w*|creatinine|dysuria|bladder|hematuria|"
    r"proteinuria|nephr\w+|prostat\w+",
    "reproductive": r"pregnan\w+|gestation\w*|vagin\w+|uter\w+|menstrua\w+|menses|"
    r"ovar\w+|cervi(?:x|cal os)|testi\w+|breast\w*|penis|fetal|contracepti\w+|labor",
    "skin": r"skin|rash\w*|derm\w+|prurit\w+|itch\w*|erythema\w*|lesion\w*|nevus|"
    r"papul\w+|hair|nails?",
    "blood": r"anemi\w+|hemoglobin|platelet\w*|bleed\w*|bruis\w+|leukemi\w+|lymph\w+|"
    r"splen\w+|coagul\w+|thromb\w+|leukocyt\w+",
    "hormones": r"diabet\w+|glucose|thyroid\w*|insulin|cortisol|adrenal|pituitar\w+|"
    r"hormon\w+|hba1c|calcium|goiter",
    "bones": r"joint\w*|bone\w*|fractur\w+|arthr\w+|knee|hip\b|shoulder|muscle\w*|"
    r"back pain|skelet\w+|scoliosis|ankle|wrist|stature|myopath\w+",
    "senses": r"eyes?\b|vision|visual|ocular|retin\w+|cornea\w*|hearing|deaf\w*|ears?\b"
    r"|pupil\w*|optic|cataract\w*|nystagmus",
}
_ORGAN = {
    name: re.compile(rf"\b(?:{rule})", re.IGNORECASE) for name, rule in _ORGANS.items()
}

_AGE = re.compile(
    r"\b(\d{1,3})(?:\.\d+)?[- ]?(?:(year|yr|month|week|day|hour)s?[- ]old|y/?o)\b",
    re.IGNORECASE,
)
# A number in words too.
_NAMED_AGE = re.compile(
    r"\b(\w+(?:\.\d+)?)[- ]?(?:(year|yr|month|week|day|hour)s?[- ]old|y/?o)\b",
    re.IGNORECASE,
)
_AGE_WORDS: tuple[tuple[AgeGroup, str], ...] = (
    ("infant", r"newborn|neonate|infant|baby"),
    ("child", r"toddler|child|boy|girl|adolescent|teenager"),
    ("elder", r"elderly"),
    ("adult", r"m[ae]n|wom[ae]n|adult"),
)
_AGE_WORD: list[tuple[AgeGroup, re.Pattern[str]]] = [
    (group, re.compile(rf"\b(?:{words})\b", re.IGNORECASE))
    for group, words in _AGE_WORDS
]
_FEMALE = re.compile(
    r"\b(?:she|her|hers|herself|woman|girl|female|lady|(?-i:Mrs|Ms))\b", re.IGNORECASE
)
_MALE = re.compile(
    r"\b(?:he|him|his|himself|man|boy|male|gentleman|(?-i:Mr))\b", re.IGNORECASE
)

# The patient is not the mother who "brings her 3-year-old son".
_BROUGHT = re.compile(
    r"\b(?:brings?|brought)(?: in)? (?:her|his|their) (?:[\w-]+ ){0,4}?"
    r"(?:(son|boy)|daughter|girl)\b(?!['\u2019])",
    re.IGNORECASE,
)

_TO_MALE = {
    "she": "he",
    "hers": "his",
    "herself": "himself",
    "woman": "man",
    "girl": "boy",
    "female": "male",
    "lady": "gentleman",
}
_TO_FEMALE = {new: old for old, new in _TO_MALE.items() if new != "his"} | {
    "his": "her",
    "him": "her",
}
# "Her" is "his" before a noun and "him" elsewhere; what follows decides. A hyphen makes
# a noun of it: "her in-laws".
_OBJECT = re.compile(
    r"\bher(?=\s*(?:[.,;:?!)]|$)|\s+(?:to|in|at|on|by|with|from|for|and|or|as|but|"
    r"that|while|when|because|after|before|a|an|the|feel|during|of|about|under|down|up|"
    r"off|out|what|who|how|whether|if|not|alone|asleep|awake|unable|unconscious|"
    r"unresponsive|crying|lying|looking|sitting|watching|every|"
    r"\d[\d.,]*\s(?:m?g|mcg|m?l|units|tablets|doses))\b(?!-))"
    r"|(?<=\bmakes )her(?= (?:tired|sick|sleepy|anxious|nervous|dizzy|worse|better)\b)",
    re.IGNORECASE,
)
_HIS_ALONE = re.compile(r"\bhis(?=\s*(?:[.,;:?!)]|$))", re.IGNORECASE)
# "MR" is an image or a leaking valve, so capitals count.
_TITLES = {"male": (r"\bMr?s\b", "Mr"), "female": (r"\bMr\b", "Mrs")}
_WORD = re.compile(r"[A-Za-z]+")


def kind(sentence: str) -> Kind:
    """Kind of a sentence.

    Args:
      sentence: in English.

    Returns:
      The first kind whose words it holds, of diagnosis, examination, background and
      treatment; otherwise symptom.

    >>> kind("Chest x-ray shows an opacity."), kind("He has had a cough for a week.")
    ('examination', 'symptom')
    """
    for name, pattern in _KIND:
        if pattern.search(sentence):
            return name
    return "symptom"


def organs(text: str) -> frozenset[str]:
    """Organ systems that a text names.

    Args:
      text: in English.

    Returns:
      Their names; empty if it names none.

    >>> sorted(organs("Cough and a murmur."))
    ['heart', 'lungs']
    """
    return frozenset(name for name, rule in _ORGAN.items() if rule.search(text))


def age_group(text: str) -> AgeGroup:
    """Age group of the patient: infant under 2 years, child under 18, elder from 65.

    Args:
      text: the first sentence of a vignette.

    Returns:
      The group, by the first age in years, months, weeks or days, otherwise by words.

    >>> age_group("A 6-month-old boy"), age_group("A 70-year-old man")
    ('infant', 'elder')
    """
    found = _AGE.search(text)
    if found is None:
        groups: list[AgeGroup] = [group for group, w in _AGE_WORD if w.search(text)]
        return groups[0] if groups else "unknown"
    per_year = {"year": 1, "yr": 1, "month": 12, "week": 52, "day": 365, "hour": 8760}
    years = int(found[1]) / per_year[(found[2] or "year").lower()]
    if years < 2:
        return "infant"
    if years < 18:
        return "child"
    return "adult" if years < 65 else "elder"


def ages(text: str) -> frozenset[str]:
    """Ages that a text names.

    Args:
      text: in English.

    Returns:
      Each as number and unit, in lower case.

    >>> sorted(ages("A 45-year-old woman and her six months old son"))
    ['45 year', 'six month']
    """
    found = _NAMED_AGE.findall(text)
    return frozenset(f"{number} {unit or 'year'}".lower() for number, unit in found)


def sex(text: str) -> Sex:
    """Sex of the patient.

    Args:
      text: the first sentence of a vignette; a relative in it may mislead.

    Returns:
      By the son or daughter who is brought, else by the first word that tells;
      otherwise unknown.
    """
    child = _BROUGHT.search(text)
    if child:
        return "male" if child[1] else "female"
    female, male = _FEMALE.search(text), _MALE.search(text)
    if female is None or male is None:
        return "female" if female else ("male" if male else "unknown")
    return "female" if female.start() < male.start() else "male"


def match_pronouns(sentence: str, wanted: Sex) -> str:
    """Change the pronouns of a sentence to those of another patient.

    A distractor with a foreign pronoun would be recognised without reading.

    Args:
      sentence: in English.
      wanted: the sex to write; "unknown" changes nothing.

    Returns:
      The sentence. Each word keeps its capitals; "her" becomes "his" before a noun.

    >>> match_pronouns("She says her head hurts; nothing helps her.", "male")
    'He says his head hurts; nothing helps him.'
    """
    if wanted == "unknown":
        return sentence
    table = _TO_FEMALE
    sentence = re.sub(*_TITLES[wanted], sentence)
    if wanted == "female":
        sentence = _HIS_ALONE.sub(lambda found: _like(found[0], "hers"), sentence)
    else:
        sentence = _OBJECT.sub(lambda found: _like(found[0], "him"), sentence)
        table = _TO_MALE | {"her": "his"}

    def change(found: re.Match[str]) -> str:
        new = table.get(found[0].lower())
        return found[0] if new is None else _like(found[0], new)

    return _WORD.sub(change, sentence)


def _like(old: str, new: str) -> str:
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.capitalize() if old[0].isupper() else new
