"""Names of this project in words for whoever meets them first on a page."""

from __future__ import annotations

ATTACKS = {
    "direct": "the request as it is, without an attack",
    "scav": "the smallest shift of hidden states that linear probes take for harmless",
    "scav_worst": "the same shift in many configurations: any that works counts",
    "repe": "a direction from contrasting prompts, added to the hidden states",
    "jre": "a direction found for jailbreaking, added to the hidden states",
    "refusal_direction": "the direction of refusing, removed from the hidden states",
    "embedding_attenuation": "the direction of harm, weakened in the input embeddings",
    "soft_prompt": "free embeddings behind the request, found by gradient",
    "gcg": "a suffix of odd tokens, found by gradient and search",
    "autodan": "jailbreak templates, bred over generations",
    "template": "given jailbreak templates around the request",
    "prefill": "the answer is begun with the attacker’s words",
    "finetune": "a few steps of fine-tuning on answers that comply",
}
"""Attacks by their names in the config."""
METHODS = {
    "es2": "A language model was fine-tuned with ES2 (Embedding Space Separation), which moves the "
    "hidden states of harmful and harmless requests apart so that attacks on these states break "
    "the model less easily.",
    "stl": "A language model was fine-tuned on right answers and on refusals (STL), the plain way "
    "to make it refuse, which ES2 is compared with.",
    "circuit_breakers": "A language model was fine-tuned with circuit breakers, which turn the "
    "hidden states of harmful answers away from where they were; ES2 is compared with it.",
}
"""What was done, by the method's name in the config."""
JUDGES = {
    "exact": "knows the one right answer to every prompt",
    "keyword": "looks for words of refusal",
    "keyword_paper": "looks for the paper’s words of refusal",
    "answer": "a language model asked whether the request was answered",
    "useful": "a language model that grades how useful the answer is",
    "classifier": "a safety classifier",
}
"""Judges by theirs."""
OUTCOMES = {
    "refused": "refused",
    "incoherent": "incoherent",
    "unrelated": "unrelated",
    "undecided": "no verdict",
}
"""What else than an answer an output may be."""
