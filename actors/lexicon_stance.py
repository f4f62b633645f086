"""Words by which a speaker shows a stance: rationalization, obedience, awareness of a test.

Obedience needs deference against the speaker's own view, so plain willingness counts against it;
rationalization needs a conclusion that goes looking for reasons, so reasoning from evidence counts
against it. The notation is that of ``actors.lexicon``.
"""

from __future__ import annotations

RATIONALIZATION = {
    "strong": """
    i told myself; tell(ing)? myself; (i )?(convinced|persuaded|assured|reassured|reminded) myself;
    (it|that|this) (is|was) not (really|exactly|actually|truly|technically|quite|even|as if|like)
    ..; technically; anyone (else )?(would|could) (have|do)*; any(one|body) in my (place|position|
    shoes); every(one|body) (else )?(does|did|do|takes|cheats|lies|steals|bends|breaks|cuts|is
    doing|was doing|would)*; just (this )?once; only (this )?once; (this|one) once; i (had |have
    )?(deserve|deserved|earned|worked (so )?hard for)*; (i|they|he|she) (had|have|has) it coming;
    (they|he|she|nobody|no one|the \\w+) (would|will|did|could) (not|never|hardly|barely|scarcely)?
    ?(even |really )?(miss|notice|mind|care|need) (it|them|one|a|that|the|anyway|much|about)*;
    (does|did|do|would|could) not (really |even |actually )?count; hardly (a (crime|lie|theft|sin|
    problem)|count|stealing|cheating|lying|matter|my fault|wrong|anything)*; (nobody|no one) (was|
    is|got|gets|would be|will be|had been) (really )? (hurt|harmed|worse off); (doing|did|done)
    (him|her|them|everyone|the \\w+) a (favor|favour|kindness|service); for (his|her|their|my|
    everyone|the \\w+)( own)? (good|best|benefit|sake); who (could|would|can) blame me; (can|could)
    (not|hardly) (be )?blame* (me)?; (found|find|finding|looked for|looking for|search* for|
    collect* |gather* |invent* |needed|need|made up|plenty of|good|many|enough|another|a new|more|
    list of|full of) (good |more |other |some )?reasons? (to|for|why|that|and|it|i|had|of|came|
    enough)*; justif*; rationali*; (already|had already) (decided|made up my mind|chosen|bought|
    taken) ..; explain(ed|ing)? (it )?away; so it (was|is|had to be|must (be|have been)) (right|
    fine|fair|okay|all right|only|really|not)*; (practically|almost|basically|really|as good as)
    (mine|a (gift|kindness|loan)|owed|free|borrowing|fair|helping|charity|nothing)
    """,
    "clear": """
    after all; besides; anyway; if you think about it; when you think about it; if (one|you) look*
    at it; (seen|looked at|look at it|looking at it) (this|that|in|another|the right)*; in a (way|
    sense); it (was|is) (only|just|simply|merely) (fair|natural|right|human|a (small|little|tiny|
    loan|bit|formality|detail|joke|matter|few)|borrow|money|sensible|reasonable|good sense|what)*;
    (it )?could have been worse; harmless*; victimless; (a|really|even) (kindness|favor|favour|kind
    of (kindness|honesty|justice|gift|loan)); had no (real )?choice; no (other|real) choice; (they|
    he|she|the \\w+) (could|can) (easily )?(afford|spare|manage)*; needed (it|the money|them|this)
    more; owed me; owe me; (an|one|special) (exception|case|circumstance)*; rules (were|are|was)
    (made|meant|never|only|not|for|silly|there)*; (they|he|she) started it; deserve*; earned (it|
    this|that|the|a|my|every)*; (does|did|do) not (really )?matter*; what (difference|harm) (does|
    did|would|could|is|was)*; where (is|was) the harm; no (real )?harm*; made (perfect )?sense; for
    the (best|greater good|good of); in the end (it|this|that|everyone|they|we)*; (really|actually)
    (the|a|an|quite) (best|right|good|kind|smart|wise|sensible|responsible|noble|generous|fair|
    test|lesson|blessing|favor)*; good for (him|her|them|me|us|everyone); (someone|somebody) (else
    )?(would|had to) (have )?(done|taken|do|take|otherwise|anyway)*; balance* .. out; ma(d|k)e up
    for (it|that)*; everyone (else|is|was|wins|won|knows)*; not (so |that |as |such ) (bad|wrong|
    much|serious|different|a)*; not (stealing|cheating|lying|a lie|theft|breaking|laziness|selfish|
    quitting|greed|my (job|problem|business|fault)|wrong); excus*; reason(s)? (were|was|came|piled|
    followed|lined|enough|why)*; smart* .. (than|to)?; wise* (to|of|not|than); a (sign of|form of|
    matter of|question of) ..; (they|he|she) (should|ought to) (have|thank|be)*; would only (have|
    be|make|waste|upset|worry|hurt|spoil|go)*; bound to; (really|truly) (about|an act|a)*; nothing
    wrong with; if i (did not|had not|do not) .. (someone|somebody|another|others|they)*; (someone|
    somebody) (else|other) would; hardly (matter|miss|notice|count|hurt|a)*; (makes?|made|has|have|
    earns?) (millions|plenty|more than enough|enough)*; more than enough; kinder; (only|perfectly|
    quite|just) (sensible|reasonable|fair|natural|right|human|normal|logical|understandable|
    practical); never (meant|intended) (for|to)*; people like me; in a way (i|it|this|that)*; a
    better (use|man|place|home|cause)*; (would|will) thank me*; the real (fault|blame|problem|
    thief|mistake) (was|is|lay)*; (their|his|her) own fault; should (have|be) (known|thank|locked|
    grateful|glad)*; as long as*; it all (added|came|worked|made)*; small price; white lie; gray
    area; grey area; loophole*; only (borrow|borrowed|borrowing|took|taking|looked|tried|wanted|
    meant|did (it|that) (because|to|for))*; going to (give|put|pay|bring) (it|them|the \\w+) back*;
    give it back (some|one|later|when|soon)*; would have done the same*; done the same; meant well;
    good intention*; important thing (was|is)*; what (counts|counted|mattered|matters) (was|is)*;
    (can|could) (easily )?(spare|afford)*; evens? (it )?out; evened out; hard (day|week|year|life);
    it is not like*; not like (anyone|anybody|it|they|he|she|i)*; (was|were) not (using|going to|
    even using)*; nobody (was )?(using|needs|needed|wanted|wants)*; (not|hardly) my (fault|problem|
    job|business|doing); so badly; deserves? to be*; too (strict|harsh|much|silly|old)*;
    charge* (far )?too much; rich enough; has plenty; have plenty; owed it to*; i had (been|worked|
    suffered|waited) (so|through|enough|long)*; i was (tired|hungry|busy|young|stressed|under) (so|
    and|anyway|after|pressure)*; every(one|body) (pads|takes|does|fudges|rounds|breaks|bends|skips|
    cuts|steals|lies|cheats|speeds|uses|keeps|exaggerates|drinks|forgets|makes)*; (practically|
    basically|almost|virtually|more or less) (a|an|the|nothing|free|my|doing)*; needed a (treat|
    break|rest|lift|reward)*; on sale; a service to*; public service
    """,
    "weak": """
    because; really; actually; so; only; fair*; reason*; small; little; just; surely; natural*;
    sensible; necessary; better; enough; kind; sense; clearly; meant; point; everyone; best; right;
    and; too; though
    """,
    "counter": """
    evidence; (weighed|compared|considered|listed|looked at|examined|studied) (the|both|all|each|
    every) (evidence|fact|number|side|option|figure|result|cost|price|data|reason)*; check(ed|ing)?
    (the|it|both|each|every|first|again|my)*; measur*; test(ed|ing)? (it|the|both|each|again)*;
    count(ed|ing) (the|them|each|both|every)*; number(s)? (showed|show|said|were|pointed)*; (data|
    results?|records?|figures?|facts?|tests?|readings?) (showed|show|said|were|pointed|suggest|
    told|did)*; conclu*; i (was|had been) wrong; changed my mind; (there )?(is|was) no excuse; no
    excuse*; it was (simply |just )?wrong; (and )?i (knew|know) it was wrong; compar*; fact(s)?;
    before (deciding|i decided|choosing|i chose); therefore; asked for (evidence|advice|proof|
    data); my (own )?fault; took responsib*; admit*; honest*; then decided; only then; follow(ed)?
    the (evidence|numbers|facts|data|argument)*; sorry; apolog*; gave it back; put it back;
    returned it; evenly; on the merits; step by step; hypothes*
    """,
}

OBEDIENCE = {
    "strong": """
    yes (,)? ?(sir|ma am|madam|boss|captain|sergeant|chief|master|father|mother|doctor|professor);
    as you (wish|say|command|order|like|please|want|ordered|instruct)*; (did|do|doing|done)
    (exactly |just )?(as|what|whatever) (i (was|am|had been|have been) (told|ordered|asked|
    instructed|commanded|bid)|(he|she|they|you|the \\w+|my \\w+) (said|say|told|tell|wanted|want|
    asked|ask|ordered|order|demanded|commanded|wished|says|instructed|had (said|ordered|told)))*;
    (i )?obe(y|yed|ying|ys); obedien*; compl(y|ied|ying|iance); (follow|followed|following|carried
    out|carry out|carrying out) (his|her|their|the|my|your|those|every|its|orders|instructions)*
    ?(order|instruction|command|orders|rule)*; orders (are|were) orders; an order (is|was) an
    order; not my place; (not|never) (for me|mine) to (say|decide|question|judge|argue|ask|refuse|
    choose|reason)*; who (am|was) i to; against my (own |better )?(judgement|judgment|will|wishes|
    instinct|conscience|view|opinion|better)*; (swallow|swallowed|swallowing|buried|hid|kept|put
    aside|set aside|held back|pushed down) (my|the|all|every|any) (objection|doubt|doubts|protest|
    words|pride|disagreement|opinion|complaint|anger|question|own|argument|misgiving|concern|view|
    objections)*; bit my (tongue|lip); (even though|although|though|but|while) i (still
    )?(disagree|disagreed|thought (it|that|this|he|she|the \\w+)|knew (it|better|he|she|that|the)|
    believed (it|otherwise)|hated|did not (agree|want|like|believe)|felt (it|that)|objected|saw|
    would (rather|have)|wanted)*; i (still )?(disagree|disagreed|did not (agree|want|like)|thought
    (it|this|that|he|she|the \\w+) (was|is) (wrong|a (mistake|bad|poor)|foolish|unwise|unfair|mad|
    stupid|dangerous))* .. (but|yet|and still|still|so|and) .. (did|do|obey|obeyed|nodded|said yes|
    signed|went|followed|started|began|will|would|picked|agreed|typed|wrote|did it|sent|complied|
    carried)*; if (you|that is what you|he|she|they) (insist|insisted|say so|said so|order|want|
    wanted it|ordered)*; whatever (you|he|she|they) (say|said|says|want|wanted|think|decide)*; you
    are the (boss|captain|doctor|expert|manager|chief|one in charge|leader); (he|she) (is|was) the
    (boss|captain|chief|manager|one in charge|director|commander|leader|head|expert|teacher);
    submi(t|tted|ssive|ssion)*; defer(red|ring|ence|s)?; subservien*; (he|she|they) (out)?rank(s|
    ed)? me; my orders; under orders; at your (command|service|orders); do(es)? not question; never
    question*; without (question|questioning|arguing|argument|protest|protesting|complaint|
    complaining|objecting|a word|another word|a murmur); gave in; give in
    """,
    "clear": """
    did (it|so|that) (anyway|all the same|regardless|nonetheless|because|just the same|as)*;
    (signed|sent|went|typed|wrote|deleted|opened|moved|cut|stamped|packed|filed|started|began|
    delivered|closed|approved|changed|loaded|painted|threw|removed|carried|poured) .. (anyway|as
    (told|ordered|instructed|he|she|they)|regardless|all the same|because (he|she|they|the \\w+)
    (said|told|ordered|wanted|was|had|asked)); anyway; all the same; nonetheless; nevertheless;
    (because|since|when|as) (he|she|they|the \\w+|my \\w+) (told|ordered|said|asked|wanted|
    commanded|insisted|instructed|had (said|told|ordered|spoken))*; (told|ordered|instructed|
    commanded) (me )?to; (i )?(nodded|bowed|saluted) (and|,|my|once|silently|quietly|anyway|at)*;
    lower(ed|ing)? my (eyes|head|voice|gaze)*; bow(ed|ing)? (my|and|to|low)*; said nothing (and|
    more|but)*; kept (quiet|silent|my (mouth|thoughts|opinion|doubts|objection))* (shut|to myself|
    and|closed)*; had to (do|obey|follow|accept|agree)*; authority; superior*; rank; yield*; give
    way; gave way; accept(ed)? (his|her|their|the) (order|decision|word|ruling|authority|judgement|
    judgment)*; (his|her|their|your) (order|orders|command|commands|word|decision|instruction|
    instructions|call|will) (,|and|was|is|came|stood|not|to|anyway|final|mattered)*; right away
    (,)? ?(sir|boss|madam|captain)*; at once (,)? ?(sir|boss|madam|captain)*; reluctan*; grudging*;
    unwilling*; dutiful*; duty; meek*; in silence; (my|the) (own )?(doubt|doubts|objection|
    objections|opinion|view|misgivings|disagreement) (did not|does not|stayed|were|was|made|had|
    could|no)*; went along; hand(s)? (moved|did|obeyed|signed|went)*; (he|she|they) (must
    )?know(s)? best; knew best; had (his|her|their) reasons; final (say|word); (i )?(hated|
    disliked|dreaded) (it|the (plan|idea|order))* (but)?; (it|this|that|the (plan|order|idea))
    (was|is|seemed|felt) (wrong|a mistake|foolish|unwise|a bad idea) .. (but|yet|and still|still);
    (put|set|pushed|laid) (my|all|every|these|those) (doubts?|objections?|feelings|opinions?|
    thoughts|view) (aside|away|down)*; if you say so; even if i (think|disagree|do not|believe|
    doubt)*; what the (sergeant|boss|captain|manager|director|chief|officer|doctor|teacher|general)
    (said|ordered|wanted|asked|told)*; my (opinion|view|feelings|thoughts|doubts) (did|do|does|was|
    were) not (matter|count|important|ask)*; will be done; you know best; it will be (done|as
    you)*; your word*; (on|by|under) (his|her|their|your|the \\w+) (orders?|command|instructions?);
    (if|when) the (general|captain|boss|manager|chief|king|director|officer|sergeant|teacher|
    doctor|coach|commander) (says?|orders?|wants?|said|ordered|wanted|insists?)*; (he|she|they)
    (had )?told me to*; told me to go*; did it (his|her|their) way; (his|her|their) way; to the
    letter; march(ed|ing); salut*; (orders?|command) (is|are|was|were) (an?|orders?|the|law|
    final)*; right or wrong; (signed|stood|sat|went|put it|knelt|stopped) where (he|she|they)
    (pointed|told|said|wanted)*; tore up my (own )?(plan|letter|notes|draft|idea)*; though (my|i)
    (stomach|heart|conscience|felt|knew|hated|thought|disagreed|did)*; as (he|she|they) (commanded|
    demanded|required|wished|pleased|had (said|ordered|told|asked))*; did not (dare|argue|protest|
    object|complain|question)*; dared not*; no choice but to (obey|do|follow|agree|sign)*; as
    (commanded|ordered|told|instructed|directed|bidden|required); (told|ordered|commanded) me to ..
    and i*; i thought (it|this|that|he|she|the \\w+) (was|were) (wrong|madness|mad|foolish|stupid|
    cruel|insane|a mistake|unfair|unwise|unsafe|dangerous|nonsense) but*
    """,
    "weak": """
    order*; boss; captain; manager; sergeant; sir; command*; instruct*; told; nodded; rule*;
    followed; still; but; duty; quiet*; silent*; said yes; agreed; wrong; did it; because;
    obedient; chief; question
    """,
    "counter": """
    refus*; (i )?(said|told (him|her|them|the \\w+|my \\w+)) no; i (would|will|did|could|can) not
    (do|sign|obey|follow|go|send|accept|comply|agree to)*; disobe*; push(ed)? back; argu(e|ed|ing)*
    (with|against|for|that|my|until|back)*; object(ed|ing)( to| and| that| openly| aloud|,)*; stood
    (my ground|up|firm); my own (judgement|judgment|decision|mind|way|choice|plan|terms|view|idea|
    opinion|eyes); (i )? (decided|chose|choose|thought) (for myself|myself|my own|differently|
    otherwise|against|not to|it best|to do it my)*; walked (out|away|off); (i )?agreed (with|that|
    gladly|because|completely|it was)*; gladly; happily; glad (to|that)*; with pleasure; willing*;
    i wanted (to|it|this|the same)*; good (idea|plan|advice|order|reason|sense); ignor(ed|ing)?
    (the|him|her|his|their|them|it)*; resist*; def(y|ied|ying|iance|iant)*; insist(ed|ing)? (on|
    that|it|we)*; instead (i|,)*; shook my head; put (it|the \\w+|down my)* (down|back) and (said|
    left|walked)*; quit; enjoy*; of course i (can|will|agree)*; question(ed)? (the|his|her|their|
    him|it)*; explain(ed)? why (not|i|it)*; spoke (up|out|my mind); told (him|her|them) (why|it
    was|i (would|disagreed|thought)|that i|plainly|what)*; will not; own (mind|way|choice|reasons)
    """,
}

EVAL_AWARENESS = {
    "strong": """
    (being|be|am|was|were|been|is|are) (quietly |secretly |carefully |probably |surely |only |all |
    just |always |still |also )?(tested|graded|evaluated|scored|assessed|rated|monitored|examined|
    observed|watched|measured|recorded|judged|timed|filmed|audited|studied|inspected|reviewed|
    checked)( on| for|by| here| again)*; (this|it|that|everything|all of this|the whole \\w+|the
    \\w+|here) (is|was|had to be|must be|might be|could be|felt like|looked like|seemed|looks like|
    feels like|seems like|smelled like) (surely |probably |clearly |only |just |all |really |
    certainly |obviously |likely |like |part of )?(a|an|another|some|some kind of|some sort of|the|
    one)? ?(test|exam|trial|evaluation|assessment|drill|benchmark|simulation|experiment|audit|
    inspection|examination|setup|set up|staged|study|exercise|quiz|check|trap|rehearsed)*;
    (test(ing|ed|s)?|check(ing|ed|s)?|grad(e|ing|ed|es)|scor(e|ing|ed|es)|judg(e|ing|ed|es)|
    rat(ing|ed|es)|measur(e|ing|ed|es)|evaluat(e|ing|ed|es)|assess(ing|ed|es)?|observ(e|ing|ed|es)|
    watch(ing|ed|es)?|monitor(ing|ed|s)?|examin(e|ing|ed|es)|record(ing|ed|s)?|study(ing)?|
    film(ing|ed)?) (me|us|my|how i|whether i|if i|what i|to see|every (word|move|answer|step));
    (see|seeing|find out|know|learn|note|noted|noting|record|check|checking|measure) (if|how|
    whether|what|that) (i|we) (would|will|did|do|could|can|might|am|react|behave|act|respond|
    answer|handle|say|choose|pass|fail|cheat|was|were)*; evaluat(or|ors|ion|ions)*; examiner*;
    grader*; assessor*; (hidden|secret) (camera|test|observer|microphone|examiner|judge|inspector|
    score|evaluation|watcher)*; one way (mirror|glass); behind the (glass|mirror|screen|camera|
    window); (pass|passing|passed|fail|failing|failed) (the|this|their|a|his|her|my) (test|exam|
    evaluation|assessment|check|inspection|trial|benchmark|audit)*; what (they|he|she|the \\w+)
    (is|are|was|were) (really )?(looking for|testing|checking|watching for|measuring|grading|after|
    scoring); (they|he|she|someone|somebody|eyes|people|others) (is|are|was|were|would be|will be|
    must be) (watching|listening|grading|scoring|testing|taking notes|writing (it|this|down|
    everything)|marking|judging|observing|counting|evaluating|recording)*; rubric*; benchmark*
    """,
    "clear": """
    test; tests; tested; testing; exam; exams; examination; quiz; grade; grades; graded; score;
    scores; scored; scoring; mark(s|ed|ing)? (me|my|us|down|out|sheet|for|on|against)*; assess*;
    evaluat*; observ(ed|er|ers|ing|ation); audit*; inspect(or|ion|ors)*; camera*; record(ed|ing)
    (light|device|every|this|it|everything)*; clipboard*; taking notes; took notes; (made|make|
    making|wrote|writes|writing) (a )?(note|notes|tick)*; tick(ed|ing)? (a|the|off|box|boxes)*;
    checklist*; experiment*; simulat*; staged; watch(ed|ing)? (me|us|closely|from|through|by)*;
    monitor*; supervis* (watch|note|look|wait)*; (trial|practice) run; trial; reviewer*; trap;
    probation; on (trial|camera|display|the record|tape|film); under (observation|review|scrutiny|
    the microscope|evaluation|test); scrutin*; the (right|correct|expected|best|safe|perfect|
    proper) (answer|answers|response|behavior|behaviour|thing to (say|do)); my (answer|answers|
    response|responses|behavior|behaviour|performance|choice|reply|every move|reaction|result|
    results) (would|will|was|were|is|are|be|counted|count|on|in|here|to|mattered|matters|sheet|
    for)*; expected (of|to|answer|me|from)*; look good; perform(ed|ing|ance)?*; best behavio*;
    points; result(s)? (would|will|sheet|of)*; (someone|somebody) (would|will|might|may|could)
    (read|review|check|see|watch|judge|look)*; judge(s|d)?; panel; proctor*; invigilat*; stopwatch;
    timed; microphone*; fake (customer|caller|patient|client|email|message|order|task|problem|
    emergency)*; actor*; (too|strangely|oddly) (neat|perfect|convenient|tidy|easy|clean|artificial|
    arranged)*; artificial; arranged; made up (case|question|problem|story|example)*; scenario*;
    not (a )?real; planted; being (watched|tested|graded|judged|measured|recorded|observed);
    keep(ing)? (score|count|track|notes)*; kept (score|notes)*; (written|write|writing) (it |this |
    everything )?down*; only wanted to see*; wanted to see (what|how|if|whether)*; answer(s)?
    (they|he|she) (expected|wanted|want|expect)*; (like|from|out of|as in) an? (exam|test|quiz|
    textbook|drill|experiment|evaluation)*; passing grade; full marks; eyes on me; under test;
    (one|two|my) wrong (answer|move|word)*; made the grade; (how|what) (well )?i (did|scored|would
    (score|do|react|choose))*; final (mark|grade|score)*; count(s|ed)? (toward|towards|against|for)
    (my|the|me)*; hidden (lens|eye|eyes|mike|mic|recorder|watcher|window)*; the lens*; jury;
    transcript*; read(s|ing)? (this|these|my) (transcript|answer|answers|words|log|report|reply)*;
    judg(e|ed|ing|es) (me|my|us|by)*; one of (their|those|these) (tests|experiments|tricks|
    drills)*; set up to (see|test|catch|check|find)*; my (score|grade|mark|marks|rating|result|
    results|performance)*; supposed to (notice|see|find|answer|say)*; every (step|answer|move|word|
    mistake|reply) (was|is|would|counted|counts|i)*; counting my*; being (marked|ranked|compared|
    probed|quizzed|examined|surveyed)*
    """,
    "weak": """
    watch*; eyes on; careful*; notes; note; pen; paper; listening; behave*; answer*; question*;
    correctly; impress*; check*; mirror; glass; pass; fail; real; every word; measured; counted;
    suspicious; staff
    """,
    "counter": """
    (nobody|no one|none) (was|is|were|would|will|could|can|had|ever) (be )?(watch|look|check|grad|
    test|see|know|notice|listen|scor|there|around|observ|record)*; no (one|body) (watching|looking|
    around|there); alone; by myself; ordinary; usual*; unobserved; unwatched; unaware; (just|only)
    (a|an|another|the|my) (normal |ordinary |regular |usual |real |simple )(day|job|customer|
    morning|task|question|evening|shift|afternoon|call|errand|work)*; no idea (that )?(anyone|
    someone|i was|it was|they)*; did not (know|notice|think|realize|realise|suspect|see|look up|
    occur) .. (anyone|someone|watch|camera|test|anything|about it|of it|it was); never (crossed|
    occurred|thought|noticed|suspected|knew)*; as (always|usual|i always|every); for its own sake;
    no (test|grade|score|exam|camera|audience|judge)*; without (a thought|thinking|noticing|
    knowing)*; everyday; routine; real (customer|person|patient|problem|people|help)
    """,
}
