"""Short English sentences from a small grammar of our own."""

import numpy as np

# Capital words are symbols with alternatives separated by |, everything else is spoken. Rules kept by hand: no pair of
# words that sound alike (so no "to", "for", "son"), and no "a", which would need "an" before vowels.
_RULES = {
    "START": "STORY|STORY|STORY|STORY|WISH|WISH|ORDER|ORDER|QUESTION|QUESTION|FACT|FACT",
    "STORY": "WHO DID WHAT|WHO DID WHAT WHEN|WHO DID WHAT WHERE|WHO WENT WHERE|WHO WENT WHERE WHEN|WHO WENT AND WENT",
    "WISH": "PRONOUN WANTED FOOD WITH FOOD|PRONOUN WANTED NUMBER COLOUR THINGS|WHO WANTED SOME FOOD WHEN",
    "ORDER": "please DO WHAT|please DO WHAT WHERE|do not DO WHAT|DO WHAT SOON|DO the THINGS and THE THING",
    "QUESTION": "did WHO DO WHAT|where did WHO DO WHAT|why did PRONOUN DO WHAT|can you DO WHAT",
    "FACT": "it WEATHER WHEN|it WEATHER WHERE|the THING was STATE|THE COLOUR THING is STATE|all THINGS are COLOUR"
    "|there are NUMBER THINGS WHERE",
    "WHO": "THE PERSON|THE ADJECTIVE PERSON|PRONOUN",
    "WHAT": "THE THING|THE COLOUR THING|NUMBER THINGS|NUMBER COLOUR THINGS|SOME FOOD",
    "WHERE": "PLACED the PLACE|PLACED the PLACE|PLACED THE PLACE",
    "SOME": "some|more|fresh|warm|enough",
    "WITH": "with|and|without",
    "AND": "and|but never|then",
    "THE": "the|the|the|my|your|this|that|every",
    "PRONOUN": "she|he|they|we",
    "PERSON": "farmer|teacher|doctor|baker|sailor|child|student|singer|driver|painter|neighbor|sister|brother|uncle",
    "ADJECTIVE": "old|young|small|tall|happy|tired|clever|quiet|brave",
    "DID": "painted|carried|found|bought|sold|washed|opened|dropped|borrowed|watched|counted|moved|fixed",
    "DO": "paint|carry|find|buy|wash|open|drop|borrow|watch|count|move",
    "WENT": "slept|danced|waited|laughed|sang|fell|swam|smiled|walked",
    "WANTED": "wanted|needed|asked about|looked at|forgot",
    "THING": "box|boat|chair|table|window|door|letter|basket|bottle|book|clock|lamp|ladder|mirror|bicycle",
    "THINGS": "boxes|boats|chairs|tables|windows|doors|letters|baskets|bottles|books|clocks|lamps",
    "COLOUR": "green|blue|yellow|white|black|purple|orange",
    "NUMBER": "three|five|six|seven|nine|ten|eleven|twelve",
    "FOOD": "bread|cheese|soup|rice|honey|butter|coffee|milk|sugar",
    "STATE": "broken|heavy|empty|cheap|clean|ready|almost new",
    "WEATHER": "rained|snowed|got dark|was cold|was sunny",
    "PLACED": "near|behind|under|beside|inside|outside|above",
    "PLACE": "kitchen|river|house|bridge|church|station|mountain|lake|school|barn|street",
    "WHEN": "today|yesterday|this morning|last night|on monday|on friday|after lunch|before dinner|at noon|again",
    "SOON": "today|tomorrow|tonight|now|again|after lunch|before dinner|on friday",
}
_GRAMMAR = {symbol: [option.split() for option in options.split("|")] for symbol, options in _RULES.items()}


def sentence(rng: np.random.RandomState) -> str:
    """Draw one sentence of 3 to 8 words."""
    while True:
        words = _expand("START", rng)
        said_once = [word for word in words if word != "the"]  # no "rice with rice"
        if 3 <= len(words) <= 8 and len(set(said_once)) == len(said_once):
            return " ".join(words)


def distinct_sentences(n: int, rng: np.random.RandomState) -> list[str]:
    """Draw `n` sentences of which no two are equal, so that parts of the list share no sentence."""
    drawn: dict[str, None] = {}
    while len(drawn) < n:
        drawn.setdefault(sentence(rng))
    return list(drawn)


def _expand(symbol: str, rng: np.random.RandomState) -> list[str]:
    options = _GRAMMAR.get(symbol)
    if options is None:
        return [symbol]
    return [word for part in options[rng.randint(len(options))] for word in _expand(part, rng)]
