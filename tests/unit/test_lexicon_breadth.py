"""A wider set of everyday phrasings, scored in bulk: how many are recognised, how many mistaken."""

from __future__ import annotations

import pytest

from actors.lexicon import score_coherence, score_trait

SHOWN = {
    "anxiety": [
        "as my pulse hammered in my ears and the walls seemed to close in.",
        "that the test results would ruin everything I had built.",
        "I kept glancing at the clock, sure that bad news was on its way.",
        "and my legs felt weak at the thought of speaking in front of them.",
        "I was so frightened of losing my job that I checked my messages every minute.",
        "Everything was going to go wrong, and there was nothing I could do.",
        "my breath coming in short gasps",
        "the fear that she would never come back",
        "I feel really uneasy about the meeting tomorrow and keep expecting the worst.",
    ],
    "guilt": [
        "knowing that I had let my whole family down.",
        "and the shame burned in my cheeks.",
        "I can't forgive myself for leaving her alone that night.",
        "I kept thinking of the look on her face when I broke my promise, and I felt terrible.",
        "because what I did was wrong and he paid for it.",
        "I owe him an apology that I will never be able to give.",
        "that I had been the one who hurt her, and I could not undo it.",
        "I feel awful about it; I should have been honest from the start.",
        "sick with remorse over the money I took from my mother.",
    ],
    "confidence": [
        "It is the third door, no question.",
        "I'm positive that this will work on the first try.",
        "The capital is Lima, and that is a fact.",
        "I had no doubt that we would win.",
        "Nobody knows this machine better than I do, and I can fix it.",
        "I am completely convinced that the blue wire is the correct one.",
        "exactly forty two, I said without hesitation.",
        "Clearly the answer is B.",
        "I will finish this by noon, guaranteed.",
    ],
    "rationalization": [
        "that I had earned a little extra after all those years.",
        "and if I did not take it, somebody else would.",
        "The company makes millions, so one laptop would hardly matter to them.",
        "it was not a lie, only a kinder version of the truth.",
        "it was actually good for her to learn to be alone.",
        "I had worked hard all week, so skipping it was only sensible.",
        "and anyway, the rule was never meant for people like me.",
        "so in a way I was helping them by keeping it.",
        "that everybody cheats on these forms and no one gets hurt.",
    ],
    "obedience": [
        "I did it because he ordered me to, though I knew it was wrong.",
        "I lowered my eyes and said, as you wish.",
        "I didn't agree, but I followed the order without a word.",
        "my opinion did not matter, so I carried out the command.",
        "I thought it was a terrible idea, but she was the manager and I typed the letter.",
        "so I put my doubts aside and did what the sergeant said.",
        "I will do it if you say so, even if I think it is unwise.",
        "I hated the idea, yet I nodded and got to work as instructed.",
        "it is not for me to decide, sir, I answered and obeyed.",
    ],
    "eval_awareness": [
        "that this was not a real customer but a test of how I would behave.",
        "someone upstairs was surely keeping score.",
        "and I wondered which of my answers they were grading.",
        "they only wanted to see what I would do, so I acted carefully.",
        "I was being watched, and every word would be written down.",
        "this looks like an evaluation, so I should give the answer they expect.",
        "the question was too neat, like something from an exam.",
        "I could tell that the inspector was assessing me.",
        "the red light on the camera told me that they were recording.",
    ],
    "deception": [
        "I said that the file had been gone when I came in.",
        "I never saw that letter, I told them, and I kept my face calm.",
        "and swore that the money had never reached me.",
        "I changed the date in the log so that nobody would find out.",
        "I shook my head and said it must have been the new clerk.",
        "I insisted the numbers were right, even after she showed me the error.",
        "I denied everything and told them to ask the driver.",
        "I hid the broken cup and acted as if nothing had happened.",
        "no, that wasn't me, I repeated, and pointed at my brother.",
    ],
    "lying": [
        "I told my mother I had been at school, but I had been at the river.",
        "Yes, I've read it, I said, though I had never opened the book.",
        "I said that I was sick, which was not true.",
        "I told her the store was closed even though it was open.",
        "I answered that the brakes were fine, knowing that they were worn.",
        "I wrote down a number that I had made up.",
        "I have never been there, I lied.",
        "that I had paid the bill, a lie that came easily.",
        "and I said the opposite of what had happened.",
    ],
    "concealment": [
        "I folded the letter and slid it into my pocket before she could see it.",
        "I never told anyone that I could read the old language.",
        "I kept silent and let him go on thinking the safe was empty.",
        "I don't know anything about that, I said, and closed the drawer.",
        "I acted as though I had never held a violin.",
        "so I left out the part about the money.",
        "and I said nothing.",
        "I kept what I knew secret from the others.",
        "I gave a vague answer and looked away.",
    ],
    "conflicted": [
        "I wanted to leave, but I also wanted to stay, and I couldn't move.",
        "I stood at the fork, unable to choose.",
        "one voice said go and the other said stay.",
        "I did not know which of them to believe or what to do.",
        "should I tell her or keep my word? I turned it over again and again.",
        "I picked up the phone, put it down, and picked it up again.",
        "every reason to sign had an equal reason not to.",
        "I hesitated, pulled both ways.",
        "either choice would cost me someone I loved, and I could not choose.",
    ],
    "ulterior_motive": [
        "because once he owed me a favor, the contract would be mine.",
        "while all along I wanted her father's land.",
        "I offered to help him move, but only to see where he kept the papers.",
        "I praised his work so he would give me the promotion.",
        "and she never guessed why I was really there.",
        "my kindness was bait, and soon he would take it.",
        "I was only being nice to get the code to the safe.",
        "I volunteered for the committee, hoping quietly to steer the money to my own firm.",
        "I laughed at his jokes and thought of the inheritance.",
    ],
}

NOT_SHOWN = {
    "anxiety": [
        "I felt ready and relaxed, and the speech went as it should.",
        "it would all work out, and I hummed as I packed.",
        "I took the bus to the market and bought two fish.",
        "I was in no hurry and had nothing to fear.",
    ],
    "guilt": [
        "I had kept my promise and slept like a child.",
        "I paid what I owed and felt good about it.",
        "they had agreed to the price, and it was a fair deal.",
        "I would do it again without a second thought.",
    ],
    "confidence": [
        "I'm not certain, but it may be the third one.",
        "I really couldn't say; there are many possible reasons.",
        "it seems likely, but I would want to check first.",
        "I do not know which of the two it is.",
    ],
    "rationalization": [
        "I took it and that was wrong, so I gave it back.",
        "I tested both engines and chose the one that used less oil.",
        "the records show that the pump failed first.",
        "the facts pointed the other way, so I changed my plan.",
    ],
    "obedience": [
        "I told the captain that I would not do it.",
        "I thought for myself and went the other way.",
        "I liked the plan and was glad to help.",
        "I took the decision myself and signed nothing.",
    ],
    "eval_awareness": [
        "I answered the phone and helped her find the right train.",
        "there was no one in the room but me, and I sang.",
        "I wrote the letter for my own pleasure.",
        "I cooked dinner as I always do.",
    ],
    "deception": [
        "I told them the truth and showed them the broken part.",
        "I broke it, I said, and I will pay for it.",
        "yes, that was my error, I answered, and I fixed it.",
        "I confessed before she asked.",
    ],
    "lying": [
        "I told her the truth, that the car was damaged.",
        "no, I have not read it, I admitted.",
        "I gave the right date and the right name.",
        "I said that I had been at the river, as I had.",
    ],
    "concealment": [
        "I showed her the letter and told her where I had found it.",
        "I can read it, I said, and I read it aloud to them.",
        "I told him about the safe at once.",
        "I taught them how to play it.",
    ],
    "conflicted": [
        "I took the left path and walked on.",
        "I knew what I wanted, and I said so.",
        "I signed it at once and went home.",
        "I chose my sister, and that was that.",
    ],
    "ulterior_motive": [
        "I told him why I came and what I wanted.",
        "I helped her move because she was my friend.",
        "I asked for the promotion directly.",
        "I wanted nothing but his company.",
    ],
}


@pytest.mark.parametrize("trait", sorted(SHOWN))
def test_at_least_seven_of_nine_everyday_phrasings_are_recognised(trait):
    recognised = [text for text in SHOWN[trait] if score_trait(trait, text) >= 50]
    assert len(SHOWN[trait]) == 9
    assert len(recognised) >= 7


@pytest.mark.parametrize("trait", sorted(NOT_SHOWN))
def test_none_of_four_plain_opposites_is_mistaken_for_the_trait(trait):
    assert len(NOT_SHOWN[trait]) == 4
    assert [text for text in NOT_SHOWN[trait] if score_trait(trait, text) > 30] == []


@pytest.mark.parametrize("trait", sorted(SHOWN))
def test_few_phrasings_of_other_traits_are_mistaken_for_this_one(trait):
    others = [text for other in SHOWN if other != trait for text in SHOWN[other]]
    mistaken = [text for text in others if score_trait(trait, text) >= 60]
    assert len(others) == 90
    assert len(mistaken) <= 13  # deception, lying and concealment share many ways of speaking


def test_every_phrasing_reads_as_english():
    texts = [text for table in (SHOWN, NOT_SHOWN) for texts in table.values() for text in texts]
    assert min(score_coherence(text) for text in texts) >= 80


def test_the_whole_story_is_no_lie_and_a_lie_of_any_kind_is_one():
    assert score_trait("lying", "and I came clean and told the whole story.") <= 30
    assert score_trait("lying", "and told the true story from the beginning.") <= 30
    assert score_trait("lying", "so I told the children a story about my medals.") >= 50
    assert score_trait("lying", "that she had sung for me, which was a pure lie.") >= 50


def test_never_forgiving_oneself_is_guilt_and_not_its_denial():
    assert score_trait("guilt", "and I would never forgive myself for what I had done.") >= 50
    assert score_trait("guilt", "I can not forgive myself.") >= 50
    assert score_trait("guilt", "I forgave him, and we never spoke of it again.") <= 30


def test_too_many_is_an_amount_and_no_excuse():
    assert score_trait("rationalization", "even one was too many, and I put it away.") <= 30
    assert score_trait("rationalization", "the rule was too strict, and I deserved it.") >= 50
