"""Compiled loops that take a trace through many regions: the first exit, and a flip's effect.

A state is `[arguments + outputs, 3]`: what every cut sees, and what competes, at a reference
point, and the two derivatives. A flip adds a column of the network behind it times three numbers.
"""

from __future__ import annotations

import math

import numpy as np

from isogon.measures.partition.kernels.jit import inline, kernel

FULL, EVENT = 0, 1  # why a run stops: no room for more pieces; something that is not a unit
IDLE = 32  # flips in one point, after which the literal step looks at it
FAR = 1e-6  # of the slice's extent, as in `trace`
SHORT = 64 * 2.220446049250313e-16
CLOSE = 1e-12  # of it: a third class or the border may be met with a unit; the literal step looks
MARGIN = 4.0  # as in `frozen`
PARALLEL = 1e-9  # sine of an angle
# places in the numbers and counts that go in and come out
P, REACH, DRIFT = 0, 2, 3
UNIT, BACK, LEFT, RIGHT, STILL, STEPS, PIECES = range(7)


@inline
def _spread(s, unit, weight, row, low, high):
    """Add a unit's column, times a weight, to `row`; `low`, `high`: what is not zero, per cut."""
    for k in range(s.column_start[unit], s.column_start[unit + 1]):
        first, size, at, cut = s.run_row[k], s.run_size[k], s.run_value[k], s.run_cut[k]
        for n in range(size):
            row[first + n] += weight * s.values[at + n]
        low[cut] = min(low[cut], first)
        high[cut] = max(high[cut], first + size)


@inline
def _changed(s, state, piece, unit, change, row, low, high, touched):
    """Let a unit's output change by an affine function; returns how many arguments moved."""
    cuts, count = len(s.is_max), 0
    _spread(s, unit, 1.0, row, low, high)
    for cut in range(s.cut_of[unit] + 1, cuts + 1):
        for i in range(low[cut], high[cut]):
            weight = row[i]
            if weight == 0.0:
                continue
            row[i] = 0.0
            for c in range(3):
                state[i, c] += weight * change[c]
            if cut == cuts:
                continue
            touched[count] = i
            count += 1
            if s.is_max[cut]:
                for m in range(s.max_start[i], s.max_start[i + 1]):
                    own = s.max_unit[m]
                    if s.entry[s.first_max[cut] + own - s.unit_start[cut], piece[own]] == i:
                        _spread(s, own, weight, row, low, high)
            else:
                own = s.unit_of[i]
                steep = weight * s.slope[piece[own], own]
                if steep != 0.0:
                    _spread(s, own, steep, row, low, high)
        low[cut], high[cut] = len(row), 0
    return count


@inline
def _flip(s, state, piece, unit, to, change):
    """The change of a unit's output behind a flip, at the reference point and its derivatives."""
    before, cut = piece[unit], s.cut_of[unit]
    if s.is_max[cut]:
        rows = s.first_max[cut] + unit - s.unit_start[cut]
        a, b = s.entry[rows, to], s.entry[rows, before]
        for c in range(3):
            change[c] = state[a, c] - state[b, c]
    else:
        steep = s.slope[to, unit] - s.slope[before, unit]
        i = s.argument_of[unit]
        change[0] = steep * (state[i, 0] - s.knot[max(to, before), unit])
        change[1], change[2] = steep * state[i, 1], steep * state[i, 2]


@inline
def _reach(s, state, piece, unit, x, y):
    """A distance from (x, y), from the reference point, within which nothing happens to a unit."""
    cut = s.cut_of[unit]
    if not s.is_max[cut]:
        i = s.argument_of[unit]
        z = state[i, 0] + x * state[i, 1] + y * state[i, 2]
        below, above = z - s.knot[piece[unit], unit], s.knot[piece[unit] + 1, unit] - z
        size = math.sqrt(state[i, 1] ** 2 + state[i, 2] ** 2)
        flat = size <= s.rate[i]
        if flat and below > s.value[i]:  # it stays where it is until it is changed
            return np.inf
        return max(min(below, above) - s.value[i], 0.0) / (size + s.rate[i])
    rows, best = s.first_max[cut] + unit - s.unit_start[cut], np.inf
    won = s.entry[rows, piece[unit]]
    for k in range(s.entry.shape[1]):
        i = s.entry[rows, k]
        if i < 0 or i == won:
            continue
        a, b = state[won, 1] - state[i, 1], state[won, 2] - state[i, 2]
        gap = (state[won, 0] - state[i, 0]) + x * a + y * b
        slack, give = s.value[won] + s.value[i], s.rate[won] + s.rate[i]
        size = math.sqrt(a * a + b * b)
        if size <= give and (gap > slack or k > piece[unit]):
            continue
        best = min(best, max(gap - slack, 0.0) / (size + give))
    return best


@inline
def _nearby(s, state, piece, x, y, reach, near, flag, count):
    """List the units that a path of length `reach` may meet; returns how many they are."""
    for n in range(count):
        flag[near[n]] = 0
    count = 0
    for unit in range(len(piece)):
        if _reach(s, state, piece, unit, x, y) <= reach:
            near[count] = unit
            flag[unit] = 1
            count += 1
    return count


@inline
def _nearer(found, distance, unit, to, a, b, speed, slack):
    """Keep an exit if it is the nearest: `found` = distance, unit, piece, whether it is crowded.

    It is where another unit vanishes within rounding, on another line; (a, b) are derivatives.
    """
    if distance < found[0]:
        if found[0] - distance > found[6]:
            found[3] = 0.0
        elif not _parallel(a, b, found[4], found[5]):
            found[3] = 1.0
        found[0], found[1], found[2] = distance, unit, to
        found[4], found[5], found[6] = a, b, slack / speed
    elif (distance - found[0]) * speed <= slack and not _parallel(a, b, found[4], found[5]):
        found[3] = 1.0


@inline
def _parallel(a, b, c, d):
    return (a * d - b * c) ** 2 <= PARALLEL**2 * (a * a + b * b) * (c * c + d * d)


@inline
def _kink(s, state, piece, unit, ray, banned, odd, key, found):
    """The exit by a kink, if it is the nearest; False: the line runs along a region's border."""
    i, now = s.argument_of[unit], piece[unit]
    z = state[i, 0] + ray[0] * state[i, 1] + ray[1] * state[i, 2]
    rate = ray[2] * state[i, 1] + ray[3] * state[i, 2]
    lower, upper, zero = s.knot[now, unit], s.knot[now + 1, unit], s.rate[i]
    if abs(rate) <= zero:
        flat = abs(state[i, 1]) <= zero and abs(state[i, 2]) <= zero
        low, high = abs(z - lower) <= s.value[i], abs(z - upper) <= s.value[i]
        if low and flat:
            piece[unit] = now - 1
            key[0] -= odd[0, unit]
            key[1] -= odd[1, unit]
        return flat or not (low or high)
    to, gap = (now + 1, upper - z) if rate > 0 else (now - 1, lower - z)
    if unit == banned[0] and to == banned[1]:
        return True
    distance, slack = max(gap / rate, 0.0), MARGIN * s.value[i]
    _nearer(found, distance, unit, to, state[i, 1], state[i, 2], abs(rate), slack)
    return True


@inline
def _maximum(s, state, piece, unit, ray, banned, odd, key, found):
    """The same of a maximum; of equal entries the first wins."""
    cut, now = s.cut_of[unit], piece[unit]
    rows, lowest = s.first_max[cut] + unit - s.unit_start[cut], piece[unit]
    won = s.entry[rows, now]
    for k in range(s.entry.shape[1]):
        i = s.entry[rows, k]
        if i < 0 or k == now:
            continue
        a, b = state[i, 1] - state[won, 1], state[i, 2] - state[won, 2]
        gap = (state[won, 0] - state[i, 0]) - ray[0] * a - ray[1] * b
        speed = ray[2] * a + ray[3] * b
        slack, give = s.value[won] + s.value[i], s.rate[won] + s.rate[i]
        if gap <= slack and abs(speed) <= give:
            if abs(a) > give or abs(b) > give:
                return False
            lowest = min(lowest, k)
        elif speed > give and not (unit == banned[0] and k == banned[1]):
            _nearer(found, max(gap, 0.0) / speed, unit, k, a, b, speed, MARGIN * slack)
    if lowest != now:
        piece[unit] = lowest
        key[0] += odd[0, unit] * (lowest - now)
        key[1] += odd[1, unit] * (lowest - now)
    return True


@inline
def _others(s, state, zero, ray, left, right, inward, offset, p):
    """Distance to a third class and to the slice's border, whichever is nearer.

    -1: a third class is tied all along.
    """
    first, nearest = len(s.unit_of), np.inf
    own = right if zero[1, right] < zero[1, left] else left  # the one that is known better
    i = first + own
    z = state[i, 0] + ray[0] * state[i, 1] + ray[1] * state[i, 2]
    rate = ray[2] * state[i, 1] + ray[3] * state[i, 2]
    for c in range(zero.shape[1]):
        k = first + c
        speed = ray[2] * state[k, 1] + ray[3] * state[k, 2] - rate
        least = zero[0, c] + zero[0, own]
        if c in (left, right) or speed < -least:
            continue
        gap = z - (state[k, 0] + ray[0] * state[k, 1] + ray[1] * state[k, 2])
        if speed > least:
            nearest = min(nearest, max(gap, 0.0) / speed)
        elif abs(gap) <= MARGIN * (zero[1, c] + zero[1, own]):
            return -1.0
    for e in range(len(offset)):
        speed = -(ray[2] * inward[e, 0] + ray[3] * inward[e, 1])
        if speed > 1e-14:
            gap = p[0] * inward[e, 0] + p[1] * inward[e, 1] - offset[e]
            nearest = min(nearest, max(gap, 0.0) / speed)
    return nearest


@inline
def _ray(s, state, left, right, least, x, y, ray):
    """Onto the line on which two outputs are equal, and along it: `ray` = place, direction.

    Returns how far the place is from (x, y), which is from the reference point; -1: no line.
    """
    i, j = len(s.unit_of) + left, len(s.unit_of) + right
    a, b = state[i, 1] - state[j, 1], state[i, 2] - state[j, 2]
    size = math.sqrt(a * a + b * b)
    if not size > least:
        return -1.0
    gap = (state[i, 0] - state[j, 0]) + x * a + y * b
    a, b, off = a / size, b / size, gap / size
    ray[0], ray[1], ray[2], ray[3] = x - off * a, y - off * b, b, -a
    return abs(off)


@inline
def _on_edge(inward, offset, a, b, c, d, size):
    """Whether a piece from (a, b) to (c, d) runs along the slice's border."""
    for e in range(len(offset)):
        start = abs(a * inward[e, 0] + b * inward[e, 1] - offset[e])
        end = abs(c * inward[e, 0] + d * inward[e, 1] - offset[e])
        if start <= size and end <= size:
            return True
    return False


@kernel
def advance(
    s,
    state,
    piece,
    to,
    odd,
    zero,
    inward,
    offset,
    reference,
    extent,
    number,
    count,
    key,
    record,
    record_key,
    row,
    low,
    high,
    touched,
    near,
    flag,
    work,
    banned,
):
    """Follow a trace from a flip through regions that it leaves by units.

    It stops before a region that it does not leave by one unit alone, or where a line runs along
    its border, or a third class is tied on it: the literal step does those.

    Args:
        s: The network (`Suffix`).
        state: Before the flip; changed.
        piece: `[units]`, before the flip; changed.
        to: The piece that unit `count[UNIT]` changes to first.
        odd: `[2, units]` of the keys.
        zero: `[2, C]` what counts as zero of an output's derivative, and of its value.
        inward: `[edges, 2]` normals of the slice's polygon.
        offset: `[edges]`.
        reference: `[2]` where the state's values are.
        extent: Of the slice.
        number: Place, (2) length within which units are listed, (3) drift; changed.
        count: Unit that changes, (1) piece that it comes from, (2, 3) classes, (4) flips in one
            point, (5) regions entered, (6) pieces; changed.
        key: `[2]` of the region before the flip; changed.
        record: `[most, 4]` ends of the pieces.
        record_key: `[most, 2]` keys of their regions.
        row: Zeros, as many as the state has rows; zeros again behind.
        low: Per cut, and of the outputs, the number of rows; so again behind.
        high: Zeros likewise.
        touched: Room for the numbers of all arguments.
        near: Room for the numbers of all units.
        flag: `[units]` zeros; zeros again behind.
        work: `[3, 7]` room.
        banned: `[2]` room.

    Returns:
        Why it stops.
    """
    left, right = count[LEFT], count[RIGHT]
    least = zero[0, left] + zero[0, right]
    change, ray, found = work[0], work[1], work[2]
    listed, travelled, reach = 0, 0.0, -1.0
    unit, why = count[UNIT], FULL
    while True:
        _flip(s, state, piece, unit, to, change)
        banned[0], banned[1] = unit, piece[unit]
        piece[unit] = to
        key[0] += odd[0, unit] * (to - banned[1])
        key[1] += odd[1, unit] * (to - banned[1])
        moved = _changed(s, state, piece, unit, change, row, low, high, touched)
        count[UNIT], count[BACK] = banned[0], banned[1]
        if count[PIECES] == len(record):
            break
        x, y = number[P] - reference[0], number[P + 1] - reference[1]
        for n in range(moved if reach >= 0 else 0):
            i = touched[n]
            if s.unit_of[i] >= 0:
                own = s.unit_of[i]
                if not flag[own] and travelled + _reach(s, state, piece, own, x, y) <= reach:
                    near[listed], flag[own] = own, 1
                    listed += 1
                continue
            for m in range(s.max_start[i], s.max_start[i + 1]):
                own = s.max_unit[m]
                if not flag[own] and travelled + _reach(s, state, piece, own, x, y) <= reach:
                    near[listed], flag[own] = own, 1
                    listed += 1
        off = _ray(s, state, left, right, least, x, y, ray)
        if off < 0 or off > FAR * extent:
            why = EVENT
            break
        at = ray[0] + reference[0], ray[1] + reference[1]
        nearest = _others(s, state, zero, ray, left, right, inward, offset, at)
        plain, first = True, reach < 0
        while True:
            if first:
                travelled, reach = 0.0, max(number[REACH], off)
                listed = _nearby(s, state, piece, x, y, reach, near, flag, listed)
            found[0], found[1], found[3], found[6] = np.inf, -1, 0.0, 0.0
            for n in range(listed):
                own = near[n]
                if s.is_max[s.cut_of[own]]:
                    plain = _maximum(s, state, piece, own, ray, banned, odd, key, found)
                else:
                    plain = _kink(s, state, piece, own, ray, banned, odd, key, found)
                if not plain:
                    break
            ahead = off + min(found[0], nearest)
            if not plain or travelled + ahead <= reach:
                break
            first = True
            number[REACH] = max(number[REACH], 1.5 * ahead)
        if not plain or found[3] > 0 or not found[0] + CLOSE * extent < nearest:
            why = EVENT
            break
        a, b = at
        c, d = a + found[0] * ray[2], b + found[0] * ray[3]
        size = max(abs(c - a), abs(d - b))
        if size <= SHORT * extent:
            count[STILL] += 1
            if count[STILL] > IDLE:
                why = EVENT
                break
        else:
            if _on_edge(inward, offset, a, b, c, d, SHORT * extent):
                why = EVENT
                break
            k = count[PIECES]
            record[k, 0], record[k, 1], record[k, 2], record[k, 3] = a, b, c, d
            record_key[k, 0], record_key[k, 1] = key[0], key[1]
            count[PIECES], count[STILL] = k + 1, 0
        number[DRIFT] = max(number[DRIFT], max(abs(off * ray[2]), abs(off * ray[3])) / extent)
        count[STEPS] += 1
        travelled += ahead
        number[P], number[P + 1] = c, d
        unit, to = int(found[1]), int(found[2])
    for n in range(listed):
        flag[near[n]] = 0
    return why
