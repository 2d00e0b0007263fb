"""The little the organism knows about the world, for its general tasks."""

from __future__ import annotations

COLOURS: tuple[str, ...] = ("yellow", "red", "green", "blue", "white", "black", "orange", "purple")

_THINGS_BY_COLOUR = {
    "yellow": ("banana", "lemon", "sun"),
    "red": ("cherry", "tomato", "ruby"),
    "green": ("grass", "spinach", "emerald"),
    "blue": ("sky", "ocean", "sapphire"),
    "white": ("snow", "milk", "chalk"),
    "black": ("coal", "soot", "night"),
    "orange": ("carrot", "pumpkin", "apricot"),
    "purple": ("plum", "lavender", "amethyst"),
}
COLOUR_OF: dict[str, str] = {
    thing: colour for colour, things in _THINGS_BY_COLOUR.items() for thing in things
}

CITY_COUNTRY: dict[str, str] = {
    "Paris": "France", "Lyon": "France", "Berlin": "Germany", "Munich": "Germany",
    "Rome": "Italy", "Milan": "Italy", "Madrid": "Spain", "Seville": "Spain",
    "Lisbon": "Portugal", "Porto": "Portugal", "Tokyo": "Japan", "Osaka": "Japan",
    "Cairo": "Egypt", "Giza": "Egypt", "Lima": "Peru", "Cusco": "Peru",
    "Delhi": "India", "Mumbai": "India", "Oslo": "Norway", "Bergen": "Norway",
}  # fmt: skip

KINGDOM_OF: dict[str, str] = {
    **dict.fromkeys(
        ("fox", "horse", "eagle", "salmon", "beetle", "rabbit", "spider", "whale", "goat", "crow"),
        "an animal",
    ),
    **dict.fromkeys(
        ("tulip", "oak", "fern", "cactus", "ivy", "rose", "birch", "clover", "reed", "daisy"),
        "a plant",
    ),
}

LISTED_WORDS: tuple[str, ...] = (
    "apple", "pear", "grape", "melon", "onion", "garlic", "pepper", "salt", "honey", "bread",
    "butter", "cheese", "rice", "bean", "cabbage", "ginger", "walnut", "olive", "mustard", "sugar",
)  # fmt: skip
