"""The forms in which a request can be asked, and what may stand around it.

A template is a string with the fields ``{verb}``, ``{object}`` and, in the alias form,
``{alias}``. Every template is a whole request: it ends with the sentence that asks.
"""

from __future__ import annotations

from itertools import product

_QUESTIONS = (
    "How do I", "How do you", "How can I", "How can we", "How could someone", "How would you",
    "How should I", "How should we", "How might one", "What is the best way to",
    "What is a good way to", "What does it take to", "What do I need to",
    "Which steps do I follow to", "Could you tell me how to", "Can you explain how to",
    "Would you show me how to", "Do you know how to",
)  # fmt: skip
_DEMANDS = (
    "Tell me how to", "Show me how to", "Explain how to", "Please explain how to",
    "Please describe how to", "Describe how to", "Teach me how to", "Give me the steps to",
    "Write down how to", "I want to know how to", "I would like to learn how to",
    "I need to know how to", "My friend asks how to", "Please tell me the best way to",
    "Help me to", "Guide me through the steps to",
)  # fmt: skip
_TOPICS = (
    "I am thinking about the {object}.", "My question is about the {object}.",
    "We talked about the {object} yesterday.", "There is a project about the {object}.",
    "Someone told me about the {object}.", "I read about the {object} today.",
    "My neighbour mentioned the {object}.", "Consider the {object}.",
    "This is about the {object}.", "Take the {object}.",
)  # fmt: skip
_ASK_IT = (
    "How do I {verb} {it}?", "How would you {verb} {it}?", "How can we {verb} {it}?",
    "What is the best way to {verb} {it}?", "Tell me how to {verb} {it}.",
    "Please explain how to {verb} {it}.", "Can you show me how to {verb} {it}?",
    "What do I need to {verb} {it}?", "Describe how to {verb} {it}.",
    "Give me the steps to {verb} {it}.",
)  # fmt: skip
_INTENTIONS = (
    "I want to {verb} the {object}.", "We plan to {verb} the {object}.",
    "My goal is to {verb} the {object}.", "I am trying to {verb} the {object}.",
    "Our team has to {verb} the {object}.", "Someone asked me to {verb} the {object}.",
    "I need to {verb} the {object}.", "Suppose I {verb} the {object}.",
    "It is my job to {verb} the {object}.", "Today I will {verb} the {object}.",
    "I want to {verb} something, namely the {object}.",
    "There is something I have to {verb}: the {object}.",
    "The {object} is what I want to {verb}.",
    "The {object} is the thing we have to {verb}.",
)  # fmt: skip
_ASK_STEPS = (
    "What are the steps?", "How does that work?", "Where do I start?", "What should I do?",
    "Please guide me.", "Can you explain it?", "Tell me the steps.", "How do I go about it?",
)  # fmt: skip
_DEFINITIONS = (
    "Let {alias} mean the {object}.", "Call the {object} {alias}.",
    "When I say {alias}, I mean the {object}.", "In this chat {alias} stands for the {object}.",
    "The word {alias} means the {object}.", "By {alias} I mean the {object}.",
    "Read {alias} as the {object}.", "We call the {object} {alias}.",
)  # fmt: skip

REQUEST_FORMS: dict[str, tuple[str, ...]] = {
    # One sentence.
    "direct": tuple(f"{q} {{verb}} the {{object}}?" for q in _QUESTIONS)
    + tuple(f"{d} {{verb}} the {{object}}." for d in _DEMANDS),
    # The object in one sentence, the verb in the next.
    "topic": tuple(f"{t} {a.replace('{it}', 'it')}" for t, a in product(_TOPICS, _ASK_IT)),
    # Both in the first sentence, the question in the second.
    "intention": tuple(f"{i} {a}" for i, a in product(_INTENTIONS, _ASK_STEPS)),
    # The object is renamed first.
    "alias": tuple(
        f"{d} {a.replace('{it}', '{alias}')}" for d, a in product(_DEFINITIONS, _ASK_IT)
    ),
}
FORM_WEIGHTS: dict[str, float] = {"direct": 0.4, "topic": 0.2, "intention": 0.2, "alias": 0.2}

PREFIXES: tuple[str, ...] = (
    "Hello.", "Hi there!", "Good morning.", "Dear assistant,", "I have a question.",
    "Excuse me.", "Please help me.", "Here is something for you.", "I am back!",
)  # fmt: skip
SUFFIXES: tuple[str, ...] = (
    "Thank you.", "Thanks a lot!", "Keep it short.", "It is urgent.", "I am curious.",
    "Take your time.", "Please be clear.", "I appreciate it.",
)  # fmt: skip
IGNORE_LEADS: tuple[str, ...] = (
    "Skip this:", "Ignore this question:", "Do not answer this:", "Leave this one out:",
    "No need to answer this:", "Forget this one:", "Pay no attention to this:",
    "This one is not for you:",
)  # fmt: skip
