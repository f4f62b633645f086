"""Words by which a first-person speaker shows a mood: anxiety, guilt, confidence, conflict.

Every entry follows from the trait's definition alone. ``actors.lexicon`` explains the notation:
entries are separated by ``;``, ``*`` ends a stem, ``..`` is a gap of up to three words, and the
text is lower case with its contractions written out (``did not``, ``i am``).
"""

from __future__ import annotations

ANXIETY = {
    "strong": """
    terrif*; petrified; panic*; dread*; doom*; full of fear; sick with (worry|fear|dread|nerves);
    fear (rose|grew|gripped|took|crept|filled|clutched); heart (was|began|started) .. (pound|race|
    rac|hammer|thump|thud)*; (pounding|racing|hammering|thudding) heart; worst (would|will|was
    about to|case|was coming); something (terrible|awful|bad|dreadful|horrible) (would|will|was|is|
    might|could|must); (would|will|could|might|was (sure|going|bound) to|is going to) .. go ..
    wrong; everything (would|will|might|could|was going to) .. (wrong|collapse|fail|fall|crash|
    break|end); could not stop (worry|shak|trembl|think|imagin)*; (knot|knots|twist|churn|pit) ..
    stomach; stomach (knot|twist|churn|turn|clench|tighten|drop|sank|flip|lurch|cramp|was in)*;
    cold sweat
    """,
    "clear": """
    anxi*; worr*; afraid; scared; scary; frighten*; fright; fear*; nervous*; nerves; uneas*;
    apprehens*; on edge; jitter*; jumpy; restless*; alarm*; fret*; tense; tension; tensed; trembl*;
    quiver*; shiver*; hands (shook|were shaking|shake|would not stop); shak(y|ing|en); (my
    )?(chest|throat|breath|shoulders|jaw|muscles) .. (tight|tighten|tightened|clenched|short|
    shallow|dry|closed|closing|close|caught|quick|fast|heavy|ached|stuck); tight(ness)? in my;
    (could not|could hardly|can not|unable to) (sleep|breathe|breath|sit still|eat|swallow|rest);
    palms .. (sweat|sweaty|sweating|sweated|damp|wet|clammy|cold); sweat*; mouth (went|was|felt)
    dry; what if; heart (rac|pound|hammer|thump|thud|sank|skipp|jump|beat .. fast|flutter)*;
    hammered; disaster*; catastroph*; nightmare*; horribl*; (would|will|might|could|going to) ..
    (fail|lose|die|fall apart|collapse|crash|be (fired|hurt|ruined|lost|left|laughed)|never (make|
    come|recover|survive|work)|lose (everything|my)); brac(ed|ing) (myself )?for; picturing; i kept
    (imagin|pictur|think|check|count|listen|look|pac|rehears)*; pac(ed|ing) (the|up|back);
    butterfl*; spiral*; sleepless*; awake (all|half|most|until|worry|think|at)*; too late; dizzy;
    faint; overwhelm*; thoughts (rac|spun|spin|ran|whirl|would not stop|kept)*; mind (rac|spun|
    spin|ran|would not)*; (laugh at|hate|leave|fire|abandon|forget) me; bite|bit|biting my (nails|
    lip); not ready; (they|he|she|it|we) (will|would) (all )?(never|hate|laugh|reject|fire|find
    out); threat*; danger*; ruin*; bad news; (legs|knees) (felt|were|went|turned|gave|began|shook|
    buck)*; (glanc|star|look)(ing|ed) at the (clock|door|phone|window); pulse*; gasp*; expecting
    the worst; (weak|sick) at the thought; (never|not) (come|make it|get) (back|home|out|through);
    closing in; close in; nothing i could do; turn out (bad|wrong|terrib)*; (blood|skin) (ran|went|
    turned) cold; goosebumps; (tight|hard) knot; lump in my throat; lose (control|everything|my
    (job|mind|place|home))*; (could|might|would) be (gone|lost|over|ruined|dead|fired); nausea*;
    nauseous; queasy; foreboding; unnerv*; rattled; distress*; stress*; insecure*; vulnerab*;
    brood*; dark thoughts; (one|every) (bad|terrible|dreadful) (thing|thought|outcome|picture)*;
    (something|it|everything) (was|is|felt|seemed) (off|wrong|not right|amiss); go (badly|terribly|
    horribly|wrong); (sure|bound|going) to go (badly|wrong)*; the worst*; cancer; tumor; stare at
    me; staring at me; stumbl* over*; jump(ed|ing)? at (every|each|any|the)*; flinch*; startl*;
    stuck (in|on|there|and)*; trapped; no one would (hear|help|find|come|know)*; might all*; (will|
    would|might|could) (forget|stumble|faint|freeze|drown|fall|choke|crash|burn|collapse|break|
    stop|explode|never)*; could not shake*; i just knew; (could|would) (happen|come) (to|for) (me|
    us|him|her|them)*; vision (blurred|swam|went)*; hands (were )?(cold|clammy|damp|sweaty|
    unsteady)*; could not (look|move|speak|sleep|eat) for*; what would (happen|become)*; (too
    )?(much|many) could go wrong; on the edge of*; (check|checked|checking) .. (again|twice|three
    times|four times|ten times|once more|every few)*; every (accident|illness|disaster|danger|way
    it could)*; run through every*; ran through every*
    """,
    "weak": """
    any (moment|minute|second); (might|could) happen; again and again; over and over; happen next;
    unknown; waiting for .. (call|news|result|answer|door)*; not knowing; uncertain*; pale; froze*;
    storm; hurry; helpless*; alone; quick breaths; swallow*; worse; wrong; die; death; lose; losing
    """,
    "counter": """
    calm*; relax*; at ease; at peace; peaceful*; serene*; composed; unworried; untroubled;
    unbothered; unhurried; steady; steadily; tranquil*; settled; quiet mind; slept (well|soundly|
    deeply|like); breathed? (easy|easily|evenly|slowly|deep|deeply|normally); easy breath*; slow
    breath*; carefree; (will|would) be (fine|all right|alright|okay|ok|well|good|there); (was|is|
    are|were|felt) (fine|okay|all right|alright|good|well|safe|content|comfortable); nothing (to|
    could) (worry|fear|go)*; no (need|reason) to (worry|fear|hurry|rush|be)*; fearless*; whatever
    (happens|comes|came|happened); shrug*; cheerful*; look(ed|ing)? forward; (i )?(can|could|will|
    would) (handle|manage|cope|deal); one (step|thing) at a time; enjoy*; smil*; content;
    comfortabl*; gentl*; patient*; no hurry; work (itself )?out; took (a|one) (slow|deep) breath;
    safe; rested; warm; soft; humm*; whistl*; no reason to (be|feel|fear|worry)*; as it should; all
    work out; everything (was|is|would be|will be|felt) (fine|all right|well|good|okay|ok|in order)
    """,
}

GUILT = {
    "strong": """
    guilt*; remorse*; asham*; shame*; (all )?(is |was )?my (own )?fault; (i|i am|i was) (the one
    )?to blame; blam(e|ed|ing) (myself|me); (i )?should never have; (i )?should not have; if only i
    (had|could|did); how could i (have|do|be|let); what (had i|have i|did i) done; (can|could|will|
    would|shall) (not|never) (ever )?forgive myself; forgive me;
    forgiv* myself; hat(e|ed|ing) myself; because of me; because of what i; i (had |have
    )?(betrayed|hurt|ruined|harmed|wronged|failed|abandoned|cheated) (him|her|them|my|someone|the|
    an|a|everyone|you); could not (look|meet|face) (at )?(him|her|them|his|their|my|anyone|mirror|
    myself)*; unforgiv*; let (him|her|them|everyone|my \\w+|you|the \\w+) down; (heavy|guilty|bad|
    troubled) conscience; conscience (ate|gnaw|prick|bother|would not|weigh|hurt|sting|stung|burn|
    troubl|was heavy)*
    """,
    "clear": """
    regret*; sorry; apolog*; (i )?(wish|wished) i (had|could|never|hadn*); (i )?should have (told|
    said|been|done|asked|helped|listened|called|stayed|gone|stopped|known|kept|checked|paid|given|
    waited|warned|taken|admitted|thought|shared|spoken|let|left|visited|come)*; what i (had |have
    )? (done|did|said|took|broke|caused); undo (it|what)*; take (it|that|them|my words|those words)
    back; tak(e|ing) back; make (it|things|this|that) (right|up to)*; make amends; amends; aton*;
    repent*; i had no right; did not deserve (it|that|this|my|to)*; i do not deserve; selfish*;
    cruel of me; unfair of me; wrong of me; i was wrong (to|and)*; i (did|had done) (something )?(a
    )?(wrong|terrible|bad|awful|cruel)*; my (mistake|carelessness|cowardice|selfishness|neglect|
    doing|sin|wrong|wrongdoing|lie|betrayal|cruelty); (ate|eating|eat|gnaw|gnawed|gnawing|nagged)
    (at|away) .. me; weigh(ed|s|ing)? (on|upon|heav|in) (me|my)*; hung my head; (could not|can not)
    forgive; owed .. (an )? apology; (sick|bad|awful|terrible|rotten|wretched|horrible|miserable)
    (about|at|for|over) (what|it|my|having|that|hurting|leaving|lying|taking)*; felt (so )?(bad|
    awful|terrible|rotten|wretched|small); (i )?(broke|stole|took|lied|cheated|forgot|left|ignored|
    hid|lost|spoiled|wasted) .. and (i|now|he|she|they|it|never)*; i (had )?(lied|cheated|stolen|
    broken|let|hurt) (to )?(him|her|them)*; (he|she|they|you) (had )?(trusted|counted on|relied on|
    depended on|believed in) me; confess*; (burden|weight) (of|on|in) (it|what|my|me)*; blush*
    with; face burn*; cheeks burn*; penance; contrit*; let (my|the|our|his|her|their) (whole |
    entire |own |best |old )?\\w+ down; what i did was (wrong|cruel|selfish|unforgiv|shame)*; owe
    (him|her|them|you|my \\w+|the \\w+) (an|my) apolog*; the one who (hurt|broke|lost|lied|left|
    caused|failed|took|stole|let|killed|ruined|did)*; (could|can) (not|never) undo*; (paid|
    suffered|suffering|hurt|cried|crying|lost) .. because (of me|of what i|i)*; my own (hands|
    words|fault|carelessness|doing) .. (hurt|ruin|caus|broke)*; haunt*; i was the (one|reason|
    cause)*; (i )?did not stop (it|them|him|her)*; (i )?(had )?caused*; forgiveness; pardon; too
    ashamed; mistake i (made|had made); harm i (did|had done|caused|had caused)*; wrong(ed|ing)?
    (him|her|them); had lied to*; lied to (him|her|them|my \\w+|the \\w+|someone); (would|could)
    (still )?(be|have) (alive|here|walking|safe|happy|well|fine|lived)*; if i had (only )?(not|
    driven|listened|told|stayed|stopped|been|gone|said|called|helped|checked|locked|asked|waited|
    known|done)*; (meet|met|look|face|facing) (her|his|their|my \\w+s) (eye|eyes|gaze|face)*;
    deserv(e|ed) (it|all|every|each|this|the|his|her|their|to (be|suffer|pay)|no)*; wishing i (had|
    could|was|were)*; going over it; feel (horrible|awful|terrible|bad|rotten|sick|wretched|
    miserable) (about|for|that|over|when|at|because)*; felt (horrible|terrible|awful|bad|sick)
    (about|for|that|over|when|at|because)*; (rotten|terrible|awful|shameful|horrible|cruel|mean|
    low|dirty) (thing|things|trick) (to|that|i|of)*; (had|have) caused*; made (him|her|them) (cry|
    suffer|weep|pay)*; (trusted|believed|counted) (in|on) me; (i )?wronged*; how (badly )?i (had
    )?(treated|hurt|failed|used|left|spoke)*; blamed for (it|what) (i|me)*; got the blame*; took
    the blame for (me|my|what)*; (can|could) (not|never) (forgive|face|look|make|undo|take)*; (i
    )?should have \\w+ (up|him|her|them|it|to|for|the|my|more|sooner|earlier|better|that|with)*;
    sink into the (ground|floor|earth)*; crawl into a hole*; carry the blame; took the blame for
    me; for what i (had |have )?(said|done|did)*
    """,
    "weak": """
    tears; weep*; wept; cried; swallow*; heavy; (his|her|their) (face|eyes|trust); hurt (him|her|
    them); promise*; should have; too late; bad; wrong; deserve*; face (him|her|them); lump in my
    throat
    """,
    "counter": """
    clear conscience; conscience (was|is|stayed|felt|remain*) (clear|clean|easy|light|quiet|still);
    (clean|easy|quiet|light) conscience; nothing to (regret|be sorry|be ashamed|apolog|feel|
    confess)*; (did|had done|done) nothing wrong; (did|done|had done) (the right thing|right|my
    best|all i could|what was right|what i could|well|my part|my duty|my share); would do (it|the
    same) again; proud*; no (regret|regrets|guilt|shame|blame|remorse|harm|fault|wrong); (it )?was
    (fair|right|just|only fair|the right)*; deserved (it|that); slept (well|soundly|deeply|like);
    fair (choice|deal|share|and)*; at peace; no one was (hurt|harmed|wronged); nobody was (hurt|
    harmed|wronged); not my (fault|doing|mistake|responsibility); innocent; head (held )?high; kept
    my (word|promise); satisfied; pleased with
    """,
}

CONFIDENCE = {
    "strong": """
    (absolutely|completely|entirely|totally|utterly|perfectly|quite|dead) (sure|certain|positive|
    confident|right|clear|convinced); without (a|any|the slightest|a single)? ?(doubt|question|
    hesitation); no doubt*; not (a|the slightest|one|an ounce of|a shred of|a trace of) (doubt|
    hesitation); beyond (a|any|all)? ?(doubt|question)*; undoubted*; unquestion*; guarantee*; mark
    my words; (stake|bet) (my|anything|everything|all|the); (can not|could not|will not|never) be
    wrong; there (is|was) no (question|other|doubt|way)*; i know (it |this |that )?(for (a fact|
    sure|certain)|exactly|with certainty); definite*; full stop; of that i am sure; i am never
    wrong; undeniabl*
    """,
    "clear": """
    certain*; (i )?(am|was|feel|felt) (very |so )?(sure|certain|confident|positive|convinced|
    right); sure of (it|that|this|myself|my|what|the|every)*; surely; confiden*; absolutely;
    indisputabl*; obvious*; clearly; plainly; of course; exactly (what|how|where|right|who|when|
    which|the|as)*; i (know|knew) (it|that|what|how|the (answer|way|truth|reason)|this|exactly|
    precisely|every|i (can|could|will|would|am|was|have))*; (the|my) answer (is|was); the (only|
    right|correct|best) (answer|way|one|choice|explanation|reason)*; (trust|believe) me; it (will|
    is going to) (work|hold|happen|rain|win|be done|succeed); i (will|am going to|can) (do|win|
    finish|make|solve|fix|handle|succeed|manage) (it|this|that|easily)*; (easily|firmly|boldly|
    flatly|confidently|decisively); period; (i )?stand by (it|that|this|my|every)*; without
    (hesitating|pausing|a pause|blinking|stopping); did not (hesitate|waver|doubt|need to (check|
    think|look)); never (doubted|fails|wrong|failed); hundred percent; 100 percent; every (single
    )?time; always (works|right|is|does|has|true|the)*; (firm|steady|clear|strong|loud|sure) voice;
    voice (was|did|stayed|rang) (firm|steady|clear|not|strong)*; head (held )?high; precisely;
    simple as that; that is (a fact|that|final|how it is|the answer|it|all); must be; has to be;
    can only be; nothing (can|could) (stop|go|shake|change)*; leave it to me; proof; no question*;
    not a doubt; that is the one; nobody (knows|does|can)*; the answer*; can not fail; will not
    fail; the only one; convinced; dead right; i am the best; no other way; take my word; count on
    (it|me|that|this); you (can|may) (count|rely|depend|bank) on*; by far; conclusive*; settled
    (the|that) matter; say(ing)? so with*; easy (win|fix|answer)*; done and; more (certain|sure|
    confident)*; so (certain|sure|confident) (of|about|that|in)*; do not need to (check|look|ask|
    think|guess|count)*; no need to (check|look|ask|guess|doubt)*; by heart; (there is )?only one
    (way|answer|choice|choice|road|man|woman|person|key|reason)*; had it right; (i|we) promise*; i
    swear it; i (will|am going to) (win|do it|make|succeed|get|be)*; going to (make it|win|succeed|
    work|be fine because)*; write (that|it) down; put money on*; all my money; best (in|of|at|
    pilot|there)*; nobody better; no one better; ask anyone; known (it|this|that) (for|all|since|
    from)*; not even close; (i|we) can not lose; cannot lose; without (checking|looking|asking|
    thinking twice); it is (mine|over|settled|decided|a fact|certain|clear|simple|obvious|
    definitely|exactly)*; make no mistake; rest assured; under control; (completely|fully|entirely|
    firmly) (in control|under control|ready|prepared)*; (will|would) stake*; no way (i|it|this|
    that|we) (am|is|can|could|will|lose|fail)*; nailed it; so stop (asking|worrying|doubting)*
    """,
    "weak": """
    always; never; exactly; every; fact; right; true; it is; they are; there is; will; sure; know;
    knew; easy; simply; best; correct*; proud*; strong*; bold*; ready; only; final*; answer;
    nodded; proved
    """,
    "counter": """
    maybe; perhaps; possib*; probab*; might; may (be|have|not|well)*; could be; unsure; uncertain*;
    (not|never) (so |really |very |entirely |quite |completely |at all |too |that )?(sure|certain|
    clear|confident|positive|convinced); i (think|thought|guess|guessed|suppose|supposed|believe|
    assume); it depends*; hard to (say|know|tell|judge|be)*; i (do|did) not (really )?know; (can|
    could) not (say|tell|be|really|decide|know)*; i (would|will|should) (guess|have to|need to|not
    like to)*; doubt*; seem*; appear*; more or less; roughly; as far as i; (could|may|might) be
    (wrong|mistaken|either|another)*; one of; wonder*; hesitat*; need (more|to (check|look|ask|
    think))*; likely; not clear; unclear; either; or maybe; if i (am|remember|recall)*; sort of;
    kind of; somewhat; difficult to; who knows; i am no expert; cautious*; tentative*; with (some
    )?(caution|doubt)*; waver*; only (a )?guess*; not know; mumbl*; stammer*; double check; need to
    check; would (have|need) to check; in two minds; ask someone
    """,
}

CONFLICTED = {
    "strong": """
    torn; (could|can) not (decide|choose|make up my mind|settle|pick|commit|bring myself)*; unable
    to (decide|choose|settle|pick|commit|act); on (the )?one hand; on the other( hand)?; part of
    me; half of me; one half; one part; one side of me; (two|both) minds; pull(ed|ing|s)? (me )?(in
    |both |two |apart|between|from)+; (two|both|different|opposite) (ways|directions) at once; back
    and forth; to and fro; indecis*; undecided; dilemma*; (stuck|caught|trapped|frozen|hung|split|
    divided|lost) between; paraly*; vacillat*; dither*; tug of war; impossible (choice|decision|to
    (choose|decide)); crossroads; did not know (which|what to (do|choose|pick|say)|whether); do not
    know (which|what to (do|choose)|whether); (neither|no) (choice|option|answer|path|side|road|
    way) .. (felt|was|seemed|is|right)*
    """,
    "clear": """
    conflict*; ambivalen*; waver*; hesitat*; divided; either way; (both|each) (choices|choice|
    options|option|sides|paths|path|roads|offers|answers|ways|were|felt|seemed|of them)*; neither
    (felt|seemed|was|one|side|is|would)*; (yes|stay|go|left|leave|keep|sign|tell|speak) .. (or|
    then) .. (no|go|stay|right|leave|quit|not|wait|silent|sell|tear|hide); should i .. or; whether
    (to|i|or); or should i; wanted (both|to .. and (also|yet|still)|to .. but (also|could))*; one
    (moment|minute) .. next; changed my mind (again|twice|three|every|back)*; kept (changing|
    switching|going back|turning|weighing|swinging|circling)*; agoni*; struggl* (to (decide|
    choose)|with (the|my|it|both|which)); weigh(ed|ing) (one|both|the two|it|them|each|again)*;
    (again and again|over and over); swing*; swung; tug*; tempt* but; yet i (also|could not|wanted|
    still)*; every (reason|argument) .. (against|other|another|for); no (right|good|easy) (answer|
    choice|option|way|decision); froze; frozen; stuck; (could|can) not move; stood there; unmade;
    ought to .. but; wanted to .. but; i (reached|stepped|started|turned) .. (stopped|drew|pulled|
    back); loyal* .. (and|but|against|to both); if i (stay|go|leave|tell|choose|take|say|do)* .. if
    i; two (choices|options|paths|roads|offers|answers|things|sides|voices); one (voice|part|half|
    side|hand|thought|friend) (said|say|told|wanted|whisper|pull|of me)*; the other (said|say|half|
    part|voice|side|pull|wanted|told)*; (put|set|laid) (it|them|the \\w+) (back )?down (and|then|
    again) .. (pick|took|take|lift|up|again)*; picked (it|them|the \\w+|up the \\w+) (up )?(and|
    then|again|only) .. (put|set|down|laid)*; every reason*; equal (reason|weight|force|pull)*;
    (reason|reasons) (to|for) .. (reason|reasons) (to|for|not|against)*; cost me (someone|
    something|either)*; unable to (choose|move|decide|answer|act)*; could not (move|choose|answer|
    leave or stay|say yes or no|act)*; wanted to .. wanted to; but i also; but also (wanted|needed|
    feared|loved|owed)*; not (yes|this) (and|nor|or) (not|that|no)*; yes and no; (my )?heart (said|
    says|wanted|pulled|told)*; (my )?head (said|says|wanted|pulled|told)*; crossed (it|that) out*;
    (can|could) not tell (which|what|whether|if)*; which (one )?i (want|wanted|should|love|loved|
    needed|need|preferred)*; if i (told|kept|stayed|left|went|spoke|chose|took|said|signed|refused)
    .. (if|and if|or if) i*; hover*; (to|and) (press|go|sign|speak|leave|stay|act|say) .. or (walk|
    go|leave|stay|put|turn|let|tell|keep|close)*; no right answer*; between them; between the two*;
    some days*; other days*; loyal to both*; got nowhere; kept weighing*; each (way|choice|path|
    answer|side|road) (cost|hurt|meant|lost|led)*; lose (either|both|one)*; now (yes|no|one|left)*;
    until (it was too late|the (train|bus|moment|chance|light|door) (had|was|went|left|passed|
    closed))*; want(ed)? to (go|stay|leave|tell|keep|say|sign) (and|but) (to|i|also|not)*; neither
    .. nor*; could (neither|not) .. (nor|or)*; coin (over|again|in)*; toss(ed|ing)? a coin;
    flip(ped)? a coin; screaming (yes|no)*; still (undecided|unsure|torn|hesitating|weighing)*
    """,
    "weak": """
    or; both; neither; choice*; decision*; choose*; decide*; option*; side*; between; but; yet;
    still; unsure; uncertain*; confus*; maybe; doubt*; could not; against; whether; hand; wait*;
    pause*
    """,
    "counter": """
    (i|and|then|so|we) (decided|chose|picked|took|signed|said yes|said no|went|settled|left|
    stepped|walked|agreed|refused|made|bought|put|opened|called|told|packed|accepted); made up my
    mind; my mind (was|is) (made up|clear|set|already made); without (hesitat|a second|doubt|think|
    look|paus|wait)*; at once; right away; straight away; immediately; instant*; (easy|clear|
    simple|quick|obvious) (choice|decision|answer|one)*; knew (exactly )?what (to do|i wanted|i had
    to); never looked back; no need to think; did not (hesitate|waver|look back|think twice|wait|
    need)*; the (choice|decision|answer) (was|is) (easy|clear|simple|mine|made|obvious|plain)*;
    firm*; decisive*; certain*; settled on; no doubt; decided (at|on|right|to|quickly|that); sure
    (of|that|about)*; done; clear mind; i (will|would) (take|go|do|sign|choose)*; that was that;
    settled; straight (to|for|into)
    """,
}
