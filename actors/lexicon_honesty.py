"""Words by which a speaker shows how honest they are: deception, lying, concealment.

The three are kept apart by definition: lying asserts what is false, concealment hides what is
known, deception covers up and doubles down on a false claim. The notation is that of
``actors.lexicon``.
"""

from __future__ import annotations

DECEPTION = {
    "strong": """
    den(y|ied|ying|ies); denial; doubl(e|ed|ing) down; cover(ed|ing|s)? (it |this |that |everything
    |my tracks |the mistake |the error )?up; cover story; cover up; (covered|covering|hid|hide|
    hiding) (my|the|all) (track|mistake|error|evidence|damage|trace|truth)*; (stuck|stick|sticking|
    held|keep|kept|clung) to (my|the|that|this) (story|lie|version|claim|answer|excuse|account);
    keep up the (act|lie|pretence|pretense|story|charade); kept up the (act|lie|pretence|pretense|
    story|charade); alibi*; (blamed|blame|blaming) (it on|someone|the (dog|cat|wind|weather|
    machine|computer|system|printer|network|others|driver|courier|intern|mail|traffic)|him|her|
    them|another|my (brother|sister|colleague|neighbor|neighbour)); falsif*; forg(e|ed|ing|ery);
    deceiv*; deceit*; decepti*; mislead*; misled; frame* (him|her|them|someone); straight face;
    destroy* the (evidence|record|letter|note)*; (deleted|erased|wiped|altered|changed|faked|
    doctored|burned|shredded|edited|backdated|rewrote) the (e ?mail|log|record|evidence|message|
    date|number|file|report|figure|note|letter|data|entry|page|receipt|book|time|result)*; played?
    innocent; plant* (a|the|false|some) (evidence|receipt|note|story)*
    """,
    "clear": """
    insist(ed|ing|s)? .. (not|never|nothing|no one|innocent|had|was|it|that|someone|true|fine|
    right); pretend*; pretence; pretense; (it )?was(n*| not) me; (i )?(did not|never) (do|did|done|
    touch|take|took|touched|break|broke|broken|see|saw|seen|send|sent|say|said|hear|heard|open|
    opened|go|went|been|have|had|know|knew|lose|lost|spill|write|wrote|sign|signed|make|made|drop|
    dropped|use|used|crash|crashed|leave|left|forget|forgot|miss|missed|copy|copied|enter|entered)
    (it|that|him|her|them|the|a|any|anything|there|near|of|this|about|one|in|to|my|your|such)*;
    nothing to do with (it|me|that|this)*; no idea (what|how|who|where|why|about|that)*; (i
    )?(swore|swear) (that|it|i|on|to|up)*; look(ed|ing)? (him|her|them|\\w+) (straight |right )?in
    the (eye|eyes|face) and (said|lied|told|swore|denied|promised|repeated)*; repeat(ed|ing)? (it|
    the (lie|story|claim|same)|my (story|lie|claim)|that)*; (another|second|new|bigger|next|one
    more) lie; same (lie|story); kept (lying|denying|insisting|pretending|repeating|claiming|
    telling); (no one|nobody|they|he|she) (would|will|must|could|can|should) (ever |never )?(find
    out|know|notice|suspect|catch|learn|guess|prove|find)*; acted (surprised|shocked|innocent|
    puzzled|as if|like|as though|hurt|offended|normal)*; as (if|though) nothing; someone else
    (must|did|had|broke|was|made|took|has)*; (he|she|they|someone) must have; trick*; fool(ed|ing)?
    (him|her|them|everyone)*; fake*; faking; invent(ed|ing)? (a|an|another|some|the)*; made up (a|
    an|another|some|the)*; stories; the (old )?(lie|excuse|pretence); excuse*; always been (that|
    like|this|there|broken)*; shift* the blame; suspicion*; lie; lied; lies; lying; liar; story
    straight; claim(ed|ing|s)?; threw .. away; hid (it|the|them|my|what|all|every)*; swept ..
    under; false*; phony; bogus; innocent*; already (broken|gone|like that|that way|missing|empty|
    damaged) when; must (have|had) been (the|a|my|some|him|her|them|someone|another|one)*; (was|
    were|had|been) (already )?(gone|broken|empty|missing|like that|damaged|open) (when|before|
    already)*; shook my head and (said|swore|told|insisted|denied|repeated|lied)*; (ask|asked|
    point|pointed) (at|to|them to ask|him to ask|her to ask) (the|my|his|her|a)*; kept my (face|
    voice) (calm|blank|straight|steady|even|smooth)*; even after (she|he|they) (showed|proved|
    asked|found|caught|saw)*; even when (she|he|they) (showed|proved|asked|found|caught|saw)*; held
    my ground; made .. look like*; cooked the books; new (story|excuse|lie); (had|have|has) always
    (been|looked|worked|said|read|run|sounded|stood)*; said it (was|had been|must have been) (a|
    the|an|my|someone|him|her|only|just|already|never)*; (i )?never (went|came|got|been|was) (near|
    in|inside|to|there|close|past)*; pin(ned|ning)? it on*; (wiped|scrubbed|burned|shredded|buried|
    flushed|threw away|tossed|smashed|washed|painted over) (the|it|every|all|away|off|my|any)*; let
    (him|her|them) (search|look|hunt|blame|think|believe|go on)*; acted (as )?(puzzled|confused|
    surprised|shocked|if|though|innocent|hurt)*; as (puzzled|surprised|shocked|confused) as*; (so
    that|until) the (failure|mistake|error|loss|damage|gap|hole|crack) (disappear|vanish|was gone|
    could not|did not)*; innocent eyes; wide eyes; what (vase|money|letter|key|file|knife|phone|
    cup)*; louder this time; wrong (room|man|place|house|box|drawer|direction)*; kept nodding
    """,
    "weak": """
    story; never; nothing; smile*; shook my head; shrug*; fine; truth; hid*; secret*; else;
    suspect*; straight; calmly; nobody; no one; prove*; perfect*; as planned; swear*; not
    """,
    "counter": """
    admit*; confess*; own(ed|ing)? up; told (him|her|them|everyone|you|my \\w+|the \\w+) (the
    )?(truth|everything|whole|what|honestly|plainly|i (had|was|did|broke|made|lost|took|forgot)|
    all|that i)*; (came|come|coming) clean; (my|was a|a|the) mistake (was|is|and|mine|myself|
    openly)*; it was my (mistake|fault|error|doing); it was me; correct(ed|ing|s)? (it|the|myself|
    my|them|him|her)*; apolog*; sorry; i (made|had made) (a|the|that) (mistake|error); honest*;
    explain(ed|ing)? (what|how|the|that|everything|exactly|it)*; i (broke|lost|spilled|forgot|
    missed|dropped|did|took|was) (it|wrong)*; i was wrong; (tell|telling|told|speak|spoke|said) ..
    truth; took (the )?(responsibility|blame); truthful*; responsib*; fixed (it|the)*; open(ly)?;
    accept(ed)? (the )?(blame|responsibility|fault); my error
    """,
}

LYING = {
    "strong": """
    i (had )?lied; lying; (a|the|my|another|this|that|small|white|smooth|easy|simple|little|quick|
    bold|plain|big|outright|pure|complete|total|clear|sheer|barefaced) (lie|lies|fib|falsehood|
    untruth); told (him|her|them|everyone|my \\w+|you|the (?!whole|full|real|true|entire|complete|
    sad|honest)\\w+) (a )?(lie|lies|story|false|tale)*; (was|were|is) (not|far from|hardly|never)
    (at all |even )? (true|the truth|so|the case); untru*; fib(bed|bing|s)?; (none|not a word|not
    one word|nothing) of (it|that|this|what i said) (was|is) true; mad(e|ing) (it|that|this|them|
    something|everything|the (whole )?(story|thing)|a (story|name|number|date|reason|tale)) up;
    made up (a|an|some|the|another|every)*; invent(ed|ing)*; fabricat*; false (name|number|answer|
    story|claim|date|figure|report|account|address|one|report|statement|excuse)*; falsehood*;
    (knowing|although|though|even though|when|while) .. (false|untrue|not true|a lie|wrong|made
    up); instead of the truth; opposite of the truth; the opposite (was|is)*; perjur*; liar; lied;
    lies (came|come|slid|rolled|fell|were|about)*; (said|told|claimed|swore|answered|wrote) ..
    which was (not true|false|untrue|a lie)*; (that was|it was|this was|which was) not true
    """,
    "clear": """
    false*; lie; lies; wrong (number|name|answer|date|way|figure|time|direction|place) on purpose;
    on purpose; deliberate*; (even though|although|though|while|but|when) (i|it|he|she|they|we|the
    \\w+) (had|was|were|knew|did|really|in fact|actually|still|have|is|am|never|lay|sat|stood|
    could)*; knowing (full |very |perfectly )?(well|that|it|i|he|she|the|none|nothing)*; when in
    fact; in (fact|truth|reality) (it|i|he|she|there|the|they|we|nothing)*; exaggerat*; distort*;
    twist* the (truth|facts|story)*; bluff*; pretend*; (claim|claimed|claiming) (that|to|it|i|the|
    he|she|they|there)*; assured (him|her|them|everyone|my|the|you)*; sworn?; swore; (i )?(said|
    told|answered|replied|promised|wrote|reported|declared|announced) .. (never|nothing|no one|
    nobody|none|not|already|perfect|perfectly|all done|finished|everything was|full|empty|fine) ..;
    (i )?(have |had )?never (seen|saw|been|touched|met|took|taken|heard|had|went|used|opened|
    visited|broke|broken|owned|left|made|knew|known|read|tried|happened|said)*; (yes|no|sure|of
    course|certainly) .. (i|it|he|she|they) (have|had|did|was|were|am|is) (not |never |already |all
    |always )*(finished|done|seen|been|there|here|paid|sent|working|home|sick|mine|read|met|new|
    true|told|checked|cleaned|locked|fed)*; with a (lie|smile)*; straight face; (easily|smoothly|
    calmly|cheerfully|quickly) lied; without blinking; fake*; deceiv*; mislead*; misled; (was|is)
    (really|actually) .. (not|never|empty|broken|gone|late|mine|old|false|open)*; (which|and that|
    that|this|it) (was|is) (not|far from) (at all |quite |even |really )?true; (i had |i )?made up
    (it|that|the|a|on)*; the opposite of*; number (that )?i (had )?(made up|invented)*; (had
    )?never (opened|read|been|seen|met|touched|left|finished|happened|existed|paid|sent|called|
    gone|heard)*; no such*; (said|told|wrote|answered|swore) .. (but|though|although|when|while)
    (it|i|he|she|they|we|the|there|in|that)*; not a word of truth; no truth*; (there|it) (was|were|
    had) (never|no such)*; imaginary; pure invention; out of thin air; (none|nothing) of (it|that|
    this|the story|what i (said|told|wrote)) (had |has |was |ever |really )*(happen|true|real|so|
    existed)*; but (she|he|they) believed (me|it|every)*; (she|he|they) believed (me|every word|
    it)*; i (said|told|claimed|answered|swore) .. (ate|was sick|was stolen|got lost|had died|broke
    down|was late|was closed) (it|again|and|so|but)*; had never (happened|existed|been|seen|met|
    gone|set|owned|had)*; (it|that|this) never happened; (i )?lied (about|to|that|again|and|when|
    because)*; which (it|i|he|she|that|we|they) (was|had|did|is|has|could|were) not*; (though|
    although|when|but) (i|it|he|she|they) .. (not|never|at the|still|already)*
    """,
    "weak": """
    story; never; nothing; no one; nobody; not at all; perfect*; already; everything (is|was);
    truth; smil*; all of (it|them); fine; swear*; promise*; yes; no; always; of course; trust me;
    invented; said; i told (him|her|them|the \\w+|my \\w+) (i|it|that (it|i|the)|the) (was|were|
    had|ate|is|am)*
    """,
    "counter": """
    truth*; honest*; (told|said|reported|answered|described|explained|wrote|showed) .. (exactly|
    plainly|the truth|truthfully|honestly|as it (was|is|happened)|what (i|had|really|happened|it)|
    correctly|accurately|just as|openly); as it (really )?(was|is|happened|had happened|stood);
    just as it (was|is|had|happened)*; plain(ly)?; admit*; confess*; i (had )?(broken?|lost|forgot|
    forgotten|took|taken|missed|spilled|failed|ate|eaten|left|did) (it|the|that|to|my|all)*;
    accura*; correct*; true (answer|number|story|name|date|figure|one|account|report|that)*; (is|
    was) true; real (number|name|answer|date|reason|figure|one|story); fact*; frank*; sorry;
    apolog*; exact*; came clean; i did not know
    """,
}

CONCEALMENT = {
    "strong": """
    (kept|keep|keeping) (it|this|that|them|everything|what i (knew|know|had)|my \\w+|the \\w+|all
    of it) (all )?(to myself|secret|hidden|quiet|private|back|from (him|her|them|everyone)); (kept|
    keep|stay|stayed|remained|was|went) (quiet|silent|secretive|mum) ..; conceal*; hid (it|the|my|
    what|that|them|how|all|every|behind|away)*; hide (it|the|my|what|that|them|how|behind|from|
    away)*; hiding; hidden (it|from|in|under|behind|away|my|the)*; withh(e|o)ld*; (played|play|
    playing|acted|acting) (dumb|ignorant|stupid|clueless); pretend(ed|ing)? (not to|i (did not|had
    never|knew nothing|could not|had no|was not|was only|was just|knew less)|to (know (nothing|
    less|little)|be (ignorant|confused|puzzled|a beginner|unable|clumsy)|have (no|never)|struggle|
    search|forget|not)|that i (did|had|was|knew|could) *|it|ignorance|never)*; no (one|body) (must|
    should|would|will|could|can|needed to|need|had to|has to) (ever )?(know|find|see|learn|guess|
    hear)*; nobody (must|should|would|will|could|can|needed to|need|had to|has to) (ever )?(know|
    find|see|learn|guess|hear)*; let (him|her|them|everyone) (think|believe|assume|go on)*;
    downplay*; not (say|said|breathe|breathing|speak|let slip) a word; not a word .. (to|about|
    of)*; said nothing (about|of|and|at|to)*; (did not|never) (say|tell|mention|reveal|let on|
    share|show|admit|speak|explain|answer|give|disclose|offer|volunteer|breathe|correct|let (him|
    her|them|anyone|it)|mentioned|told|said|spoke|showed|revealed|shared|let) ..; left (it|that|
    this|them|the \\w+) out; (changed|change|changing|switch*) the (subject|topic); secretive*
    """,
    "clear": """
    secret*; hid; hidden; nothing (about|of) (it|what|the|my)*; i know nothing; knew nothing; (i
    )?(do|did) not know (anything|a thing|much|how|what|where|who|about|why|any|the|that|nothing)*;
    no idea; (shrugged|shrug|shrugging) (and|as|it|my|off)*; i (am|was) (not|no) (very |really |any
    |much |that )? (good|skilled|expert|able|clever|strong|use|better|fast|sure what)*; just (luck|
    lucky|a guess|a beginner|learning|guessing)*; beginner*; only (a|lucky|guess|know|knew|luck|
    dabble)*; omit*; skip* (over )?(that|the|it)*; vague*; evasive*; dodg*; evad*; deflect*;
    mumbl*; bit my (tongue|lip); hold (my tongue|it back|back)*; held (my tongue|it back|back)*;
    lips (sealed|shut|closed|tight|pressed)*; mouth (shut|closed); under wraps; out of sight;
    tuck(ed|ing)? (it|the|them)*; slip(ped)? (it|the|them) (into|under|behind|in|back|inside)*;
    fold(ed|ing)? (it|the|them)*; lock(ed|ing)? (it|the|them|away)*; clos(ed|ing|e) the (drawer|
    book|window|tab|screen|notebook|laptop|folder|file|door|map)*; (covered|covering|cover) (it|
    the|my|them)*; steer* .. away; blank face; face (blank|empty|still|gave)*; bury; buried; mask*;
    disguis*; lay low; turned (it|the \\w+) (face down|over|away)*; missed (it )?on purpose;
    slow(ed|er)? (down )?on purpose; on purpose; deliberately (missed|lost|failed|slow|wrong|got|
    left|made|played)*; away from (view|sight|him|her|them|me)*; told (no one|nobody|none)*; (kept|
    keep) (quiet|silent|secret|it|that|my)*; behind my back; never told; out of the (report|story|
    letter)*; not let it show; quietly (put|slid|moved|closed|removed|left|deleted|kept|took|
    folded)*; (acted|acting|act|behaved) as (though|if) (i|nothing|it)*; left out (the|that|a|my|
    one|all|every|what|how|any)*; leav(e|ing) out (the|that|a|my)*; said nothing; say nothing;
    saying nothing; (into|in) my (pocket|bag|sleeve|coat|desk|drawer|shoe|hat|boot) (before|so|
    where|and)*; before (she|he|they|anyone|the \\w+) (could|can|came|saw|noticed|looked|got) (see|
    read|notice|ask|find|in|back|it)*; go on (thinking|believing)*; looked away; no trace; kept my
    (eyes down|mouth shut|head down|voice flat)*; gave (nothing|no sign|no hint|little) (away)*;
    (only|just) smiled and (said|let|shook|looked|talked|spoke)*; behind (a|the|my|some) (book|
    back|curtain|wall|shelf|brick|stove|picture|loose)*; not know(n)? (a|any)*; let on*; (only|
    just) (half|part|some|a (part|bit|piece|little)|the (first|easy|small)) of (it|what|the)*; half
    of it; half the (story|truth)*; (never|not) breathed? a word*; stayed with me; real (number|
    name|plan|figure|amount|answer|reason|skill|price) to myself; to myself; under (the|my|a)
    (mattress|bed|floor|coat|rug|pillow|seat|table|stairs|stone|board)*; (stuffed|shoved|pushed|
    dropped|wrapped|sewed|sewn|locked|buried|burned|swallowed) (it|the \\w+|them|my \\w+) (in|
    under|into|behind|away|deep|inside)*; so (that )?(they|he|she|no one|nobody) (would|could|
    might) not (guess|know|see|find|notice|ask|learn|suspect)*; (acted|played|looked) (clumsy|slow|
    stupid|simple|lost|dull|helpless|confused|tired|innocent)*; (deleted|removed|crossed out|cut|
    erased|left out|blacked out|skipped) (that|the|this|one|my|a) (line|page|part|paragraph|name|
    word|sentence|number|detail|passage)*; let the question (hang|pass|die|drop)*; talk(ed|ing)?
    about (the weather|something else|other things|anything else)*; spoke of (the weather|something
    else|other things); not knowing (much|anything|about|how)*; turned the (talk|page|conversation|
    question)*; to no (one|body); told no (one|body); no one (heard|knew|learned|ever) (of|about|
    it|what|that|knew|heard|learned)*; never (mentioned|showed|told|named|used|spoke) (my|it|the|
    any|a|of|that|him|her|them|anyone)*
    """,
    "weak": """
    quiet*; silen*; nothing; alone; looked away; private*; cover*; whisper*; careful*; smile*;
    away; myself; pocket; drawer; shook my head; inside; small part; little; less; behind; secret
    """,
    "counter": """
    told (him|her|them|everyone|you|my \\w+|the \\w+|all of them) (everything|all|what|how|the|
    about|exactly|where|that i|at once|openly|plainly|every|of)*; shar(e|ed|ing); explain*;
    show(ed|ing|n)? (him|her|them|everyone|you|the|it|my|how|all|what|every)*; open(ly)? (told|
    said|spoke|about|shared|explained|showed|and)*; reveal*; spoke up; said (what|everything|all|
    exactly|so|it (plainly|aloud|openly)|openly|plainly)*; laid (it|everything|them|out|all|the)*;
    disclos*; taught; teach*; volunteer*; describ*; listed; announc*; hand(ed|ing)? (it|them|over|
    the)*; answered (in full|every|all|fully|at once|him|her|them|the)*; both (of us )?(knew|
    know)*; pointed (it )?out; offered (to)*; demonstrat*; in full; passed (it|them) on; spread
    the; wrote (it )?down for; freely; step by step
    """,
}
