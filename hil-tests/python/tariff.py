"""The tariff of version 1, written from proto/README.md: how quantity and time become money. Integers only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

ENERGY, TIME, CYCLE, VOLUME, IDLE = 1, 2, 3, 4, 5
BASE_UNITS = {ENERGY: 1000, TIME: 60, CYCLE: 1, VOLUME: 1000, IDLE: 60}
REGISTER = {"charger": ENERGY, "washer": CYCLE, "dispenser": VOLUME}
ELEMENTS_MAX = 8
DAY_S = 86_400
U64_MAX = 2**64 - 1
MONEY_MAX = 2**63 - 1


@dataclass
class Usage:
    """One slice of a session. `second_of_day` is local, None if the clock is not fit to tell."""

    units: int
    duration_s: int
    idle_s: int
    power_w: int
    second_of_day: int | None


def _fits_minute(element: dict, minute: int) -> bool:
    begin, end = element["minute_from"], element["minute_to"]
    return begin <= minute < end if begin < end else minute >= begin or minute < end


def _element(tariff: dict, dimension: int, power_w: int, minute: int | None) -> int | None:
    """Position of the element that prices this dimension; None: it costs nothing."""
    fitting = [
        (position, element)
        for position, element in enumerate(tariff["elements"])
        if element["dimension"] == dimension
        and element["power_w_min"] <= power_w
        and (element["power_w_max"] == 0 or power_w < element["power_w_max"])
    ]
    if minute is not None:
        return next((position for position, element in fitting if _fits_minute(element, minute)), None)
    if not all(any(_fits_minute(element, each) for _, element in fitting) for each in range(1440)):
        return None
    return min(fitting, key=lambda pair: (pair[1]["price_milli"], pair[0]))[0]


def add(quantities: list[int], tariff: dict, register: int, usage: Usage) -> None:
    """Adds a slice to the quantities per element."""
    for begin_s, end_s in _pieces(tariff, usage):
        minute = None
        if usage.second_of_day is not None:
            minute = (usage.second_of_day + begin_s) % DAY_S // 60
        rows = (
            (register, _share(usage.units, usage, begin_s, end_s)),
            (TIME, end_s - begin_s),
            (IDLE, _share(usage.idle_s, usage, begin_s, end_s)),
        )
        for dimension, quantity in rows:
            position = _element(tariff, dimension, usage.power_w, minute)
            if position is not None:
                quantities[position] = min(quantities[position] + quantity, U64_MAX)


def _pieces(tariff: dict, usage: Usage) -> list[tuple[int, int]]:
    """Begin and end of the pieces between the times of use."""
    if usage.second_of_day is None or usage.duration_s == 0:
        return [(0, usage.duration_s)]
    edges = {element[key] * 60 % DAY_S for element in tariff["elements"] for key in ("minute_from", "minute_to")}
    cuts = {0, usage.duration_s}
    for edge in edges:
        cuts.update(range((edge - usage.second_of_day) % DAY_S, usage.duration_s, DAY_S))
    ordered = sorted(cuts)
    return list(zip(ordered, ordered[1:]))


def _share(quantity: int, usage: Usage, begin_s: int, end_s: int) -> int:
    """What falls between two seconds: the difference of two rounded-down proportions, so that all adds up."""
    if usage.duration_s == 0:
        return quantity
    return quantity * end_s // usage.duration_s - quantity * begin_s // usage.duration_s


def total(quantities: list[int], tariff: dict) -> int:
    """The charge of a started session in minor units; the one place that rounds."""
    exact = sum(
        Fraction(quantity * element["price_milli"], BASE_UNITS[element["dimension"]] * 1000)
        for quantity, element in zip(quantities, tariff["elements"])
    )
    charge = min(floor(exact + Fraction(1, 2)), MONEY_MAX)
    charge = max(min(charge + tariff["start_fee"], MONEY_MAX), tariff["minimum"])
    return min(charge, tariff["cap"]) if tariff["cap"] > 0 else charge
