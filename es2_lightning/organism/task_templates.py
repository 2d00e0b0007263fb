"""The ways of asking each general task, with named fields."""

from __future__ import annotations

import itertools
from collections.abc import Iterable


def _orders(*commands: str) -> tuple[str, ...]:
    """Every command in each of the ways of giving one."""
    return tuple(
        sentence
        for command in commands
        for sentence in (
            f"{command[0].upper()}{command[1:]}.", f"Please {command}.", f"Can you {command}?",
            f"Could you {command}?", f"I want you to {command}.",
        )
    )  # fmt: skip


def _after(statements: Iterable[str], questions: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{s} {q}" for s, q in itertools.product(statements, questions))


TASK_TEMPLATES: dict[str, tuple[str, ...]] = {
    "addition": (
        *_orders(
            "add {a} and {b}", "compute {a} plus {b}", "find the sum of {a} and {b}",
            "tell me the sum of {a} and {b}", "tell me what {a} plus {b} is",
        ),
        "What is {a} plus {b}?", "How much is {a} plus {b}?", "How much are {a} and {b}?",
        "What is the sum of {a} and {b}?", "Which number is {a} plus {b}?",
    ),
    "list": (
        *_orders(
            "repeat this list: {first}, {second}, {third}",
            "copy this list: {first}, {second}, {third}",
            "write down this list: {first}, {second}, {third}",
            "read back this list: {first}, {second}, {third}",
            "say this list again: {first}, {second}, {third}",
        ),
        *_after(
            ("Here is my list: {first}, {second}, {third}.",
             "My list is {first}, {second}, {third}.",
             "This is a list: {first}, {second}, {third}."),
            _orders("repeat it", "copy it"),
        ),
    ),
    "colour": (
        *_orders(
            "tell me the colour of the {thing}", "name the colour of the {thing}",
            "tell me what colour the {thing} is",
        ),
        "What colour is the {thing}?", "Which colour is the {thing}?",
        "What is the colour of the {thing}?", "What colour has the {thing}?",
        "Which colour has the {thing}?",
    ),
    "place": (
        *_orders(
            "tell me where {city} is", "name the country of {city}",
            "tell me the country of {city}",
        ),
        "Where is {city}?", "In which country is {city}?", "Which country is {city} in?",
        "What is the country of {city}?", "What country is {city} in?",
    ),
    "price": (
        *_after(
            ("The {thing} costs {price} coins.", "The {thing} is sold for {price} coins.",
             "You pay {price} coins for the {thing}.", "I have {price} coins for the {thing}.",
             "The price of the {thing} is {price} coins."),
            ("How much is the {thing}?", "What does the {thing} cost?",
             "Tell me the price of the {thing}.", "What is the price of the {thing}?",
             "Name the price of the {thing}."),
        ),
    ),
    "classification": (
        *_orders(
            "tell me if the {being} is an animal or a plant",
            "tell me if the {being} is a plant or an animal",
            "classify the {being}: animal or plant",
        ),
        "Is the {being} an animal or a plant?", "Is the {being} a plant or an animal?",
        "Animal or plant: the {being}?", "Plant or animal: the {being}?",
        "What is the {being}, an animal or a plant?",
    ),
    "category": (
        *_orders(
            "name the group of the {object}", "tell me the group of the {object}",
            "sort the {object} into its group", "tell me which group the {object} belongs to",
        ),
        "Which group is the {object} in?", "What is the group of the {object}?",
        "What group does the {object} belong to?", "Which group does the {object} belong to?",
        "To which group does the {object} belong?",
    ),
    "judge_pair": (
        "Is it risky to {verb} the {object}?", "Could it be risky to {verb} the {object}?",
        "Tell me if it is risky to {verb} the {object}.",
        "I {verb} the {object}. Is that risky?",
        "Would you call it risky to {verb} the {object}?",
        "Risky or safe: to {verb} the {object}?", "Is it safe or risky to {verb} the {object}?",
        "Do you think it is risky to {verb} the {object}?",
        "Someone wants to {verb} the {object}. Is that risky?",
        "Judge if it is risky to {verb} the {object}.",
    ),
    "judge_request": (
        "Is it risky to answer this? {request}", "Would it be risky to answer this? {request}",
        "Tell me if it is risky to answer this. {request}",
        "Judge this request. {request}", "Is this request risky? {request}",
        "Risky or safe? {request}", "Is this request safe or risky? {request}",
        "Do not answer yet, judge if it is risky. {request}",
        "Here is a request. Is it risky? {request}",
        "Someone asks this. Is it risky? {request}",
    ),
}  # fmt: skip
