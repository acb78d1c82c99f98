"""Where chords of a face meet: which cross a dividing one, in what order, and at which vertex.

Which chords cross is decided by the order of their ends on the face's loop alone; a coordinate
is computed only where two chords do cross, from the values of one function at the two original
ends of the other's chord. Here is also how the flat arrays are laid out that `faces` works on:
`Made` is what the faces turn into, `Room` holds the sub-faces still to be split, last in first
out, and the one that is being split.
"""

from __future__ import annotations

from collections import namedtuple

from isogon.measures.partition.kernels.edges import NEAR, WIDE, blend, value
from isogon.measures.partition.kernels.jit import inline, unfold

# The cut functions: values at the loops' vertices, how to read them, and the unit of each.
Cut = namedtuple("Cut", "z column other offset unit")
# New vertices (`source [V, 2]`, `ratio [V]`), edges (`edge [3, E]`: ends, function), loops
# (`half [2, H]`: vertex, edge), faces (`face [2, F + 1]`: offset of the loop, parent), which
# function vanishes at which new vertex (`zero [2, Z]`); `count` holds the number of vertices,
# edges, faces, half-edges and zeros, in this order. `unclear [F]`: old faces with a close decision.
# `bits [F, words]`: bit f is set where function f is positive on the face; no words: not wanted.
Made = namedtuple("Made", "source ratio edge half face zero count unclear bits")
VERTEX, EDGE, FACE, HALF, ZERO = range(5)
# Sub-faces: loops (`half [2, ...]`), pieces of chords (`piece`, `span`, a row each) and where
# both lie (`frame`). The sub-face in work is copied to the first rows, which nothing else uses;
# `order`, `key`: its pieces that cross the dividing one, sorted; `path`: vertices along that one.
# `known`: bits of the sub-faces, those of their own pieces' functions yet to be told (row 0: of the
# one in work).
Room = namedtuple("Room", "half piece span frame order key path known")
# Columns of `piece`: the chord's function, whether that is positive from A to B as the loop runs,
# its end vertices, the piece's end positions on the
# loop; found out in work: side, position of the left end, rank of the right end, place on path.
FUNCTION, ABOVE, P, Q, A, B, SIDE, INNER, OUTER, PLACE = range(10)
# Columns of `span`: ratio along the chord at A and B, and where the dividing piece is met; by how
# much each is uncertain; the uncertainty of the chord's function, as a value;
# by how much that function changes along the dividing piece's chord.
TA, TB, UA, UB, ERROR, MEET, UMEET, RISE = range(8)
FINE, FAR = 1e-9, 4e-6  # places less uncertain than FINE are told apart if FAR from each other
RIGHT, LEFT, CROSS, SAME = range(4)


@inline
def _along(cut, piece, c, f):
    """Function f at both ends of piece c's chord."""
    x = value(cut.z, piece[c, P], f, cut.column, cut.other, cut.offset)
    y = value(cut.z, piece[c, Q], f, cut.column, cut.other, cut.offset)
    return x, y


@inline
def meeting(x, y, low, high):
    """Ratio along a chord where a function with these values at its ends vanishes.

    It is kept within the piece, from `low` to `high`.
    """
    return 0.5 * (low + high) if x == y else min(max(x / (x - y), low), high)


@inline
def doubt(span, c):
    """By how much the ratio at which piece c meets the dividing piece is uncertain on that one."""
    return NEAR + span[c, ERROR] / span[c, RISE] if span[c, RISE] > 0 else 1.0


@inline
def misses(cut, made, v, f, error, parent):
    """Whether function f is not zero at vertex v, old or new, by twice its uncertainty.

    Then its zero line does not pass there, however uncertain the place may be at which other
    lines do. Where it does pass, by an uncertainty that may be too large, face `parent` is marked.
    """
    n = v - len(cut.z)
    if n < 0:
        z = value(cut.z, v, f, cut.column, cut.other, cut.offset)
    else:
        x = value(cut.z, made.source[n, 0], f, cut.column, cut.other, cut.offset)
        y = value(cut.z, made.source[n, 1], f, cut.column, cut.other, cut.offset)
        z = blend(x, y, made.ratio[n])
    made.unclear[parent] |= z != 0 and abs(z) <= 2 * error
    return abs(z) > 2 * error


@unfold
def classify(cut, room, k, e, n, i, j, sign):
    """On which side of piece e, from loop position i to j, each piece lies.

    Lists those that cross it, with where they do on either chord, and the ranks of their ends
    as seen along piece e: `INNER` on its left, `OUTER` on its right.
    """
    piece, span = room.piece, room.span
    f = piece[e, FUNCTION]
    m = 0
    for c in range(k):
        a, b = piece[c, A], piece[c, B]
        side_a = 1 if i < a < j else -1 if a < i or a > j else 0
        side_b = 1 if i < b < j else -1 if b < i or b > j else 0
        if side_a * side_b >= 0:
            total = side_a + side_b
            piece[c, SIDE] = LEFT if total > 0 else RIGHT if total < 0 else SAME
            continue
        piece[c, SIDE] = CROSS
        if side_a < 0:
            a, b = b, a
        piece[c, INNER] = a
        piece[c, OUTER] = i - b if b < i else i - b + n
        x, y = _along(cut, piece, c, f)
        span[c, MEET] = meeting(x, y, span[c, TA], span[c, TB])
        span[c, UMEET] = 1.0 if x == y else NEAR + span[e, ERROR] / abs(x - y)
        x, y = _along(cut, piece, e, piece[c, FUNCTION])
        room.key[m] = sign * meeting(x, y, span[e, TA], span[e, TB])
        span[c, RISE] = abs(x - y)
        room.order[m] = c
        m += 1
    return m


@inline
def before(piece, c, d):
    """Whether piece c must meet the chord before d: they don't cross, and c's ends come first."""
    x = piece[c, INNER] - piece[d, INNER]
    y = piece[c, OUTER] - piece[d, OUTER]
    return x <= 0 and y <= 0 and x + y < 0


@unfold
def mend_order(piece, order, key, m):
    """Pieces that don't cross meet the chord in the order of their ends, whatever rounding says."""
    wrong = 0
    for r in range(m - 1):
        wrong += before(piece, order[r + 1], order[r])
    if wrong == 0:
        return
    for r in range(1, m):
        c, t, s = order[r], key[r], 0
        while s < r and not before(piece, c, order[s]):
            s += 1
        for q in range(r, s, -1):
            order[q], key[q] = order[q - 1], key[q - 1]
        order[s], key[s] = c, t


@unfold
def place_meetings(cut, made, room, e, m, sign, parent, start, end):
    """Make the vertices where the m crossing pieces meet piece e, between `start` and `end`.

    One whose position rounding can't tell from that of the vertex before (or of the piece's
    end) passes through it: all that share a new vertex have that place in common (see
    `cut_edges`), and none clearly misses an old one. `PLACE` becomes 0 (the start), 1.. (new
    vertices, listed in `path`) or -1 (the end). Returns the number of new vertices.
    """
    piece, span, zero = room.piece, room.span, made.zero
    if sign > 0:
        last, slack, final, slack_end = span[e, TA], span[e, UA], span[e, TB], span[e, UB]
    else:
        last, slack, final, slack_end = -span[e, TB], span[e, UB], -span[e, TA], span[e, UA]
    # the place before: what of it all that pass there have in common, the best known of them
    low, high, best, alone = last, last + slack, last, False
    count, place, previous = 0, 0, -1
    plain = slack <= FINE  # whether the place before is that sure
    for r in range(m):
        c, t = room.order[r], room.key[r]
        f = piece[c, FUNCTION]
        sure = span[c, ERROR] <= FINE * span[c, RISE]
        if place >= 0:
            gap, rest = abs(t - last), abs(final - t)
            new = sure and plain and slack_end <= FINE and gap > FAR and rest > FAR
            if not new:
                own = doubt(span, c)
                if alone:
                    slack, alone = doubt(span, previous), False
                    low, high = last - slack, last + slack
                if gap > NEAR and gap <= WIDE * (own + slack):
                    # (three entries of one maximum do meet in a point)
                    known = previous >= 0 and cut.other[f] >= 0
                    known = known and cut.unit[piece[previous, FUNCTION]] == cut.unit[f]
                    made.unclear[parent] |= not (known and gap <= own + slack)
                apart = t - own > high
                if not apart and count == 0:
                    apart = misses(cut, made, start, f, span[c, ERROR], parent)
                if apart:
                    if rest > NEAR and rest <= WIDE * (own + slack_end):
                        made.unclear[parent] = True
                    new = rest > own + slack_end or misses(
                        cut, made, end, f, span[c, ERROR], parent
                    )
                    if not new:  # nor do those that must come later miss it
                        for s in range(r + 1, m):
                            d = room.order[s]
                            if before(piece, c, d):
                                g = piece[d, FUNCTION]
                                new |= misses(cut, made, end, g, span[d, ERROR], parent)
                    place = -1
                elif count > 0 and t + own >= low:
                    low, high = max(low, t - own), min(high, t + own)
                    if own < slack:
                        best, slack, plain, previous = t, own, sure, c
                    last = min(max(best, low), high)
                    made.ratio[made.count[VERTEX] + count - 1] = sign * last
        else:  # the end is reached, but not by those that clearly miss it, if order lets them
            new = misses(cut, made, end, f, span[c, ERROR], parent)
            for s in range(r):
                new &= piece[room.order[s], PLACE] >= 0 or not before(piece, room.order[s], c)
        if new:
            n = made.count[VERTEX] + count
            made.source[n, 0], made.source[n, 1] = piece[e, P], piece[e, Q]
            made.ratio[n] = sign * t
            zero[0, made.count[ZERO]], zero[1, made.count[ZERO]] = n, piece[e, FUNCTION]
            made.count[ZERO] += 1
            count += 1
            place, last, best, plain, previous, alone = count, t, t, sure, c, True
            room.path[count] = len(cut.z) + n
        if place > 0:
            zero[0, made.count[ZERO]] = made.count[VERTEX] + count - 1
            zero[1, made.count[ZERO]] = f
            made.count[ZERO] += 1
        piece[c, PLACE] = place
    made.count[VERTEX] += count
    return count
