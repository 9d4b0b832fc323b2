"""Tables of statuses that Hypothesis makes up, as the TOML that a shop would write. About half of them are wrong."""

import json

from hypothesis import strategies as st

NAMES = ("Packed", "Waiting", "Cancelled", "Returned", "Gone")


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Every status but the first follows an earlier one; a few more may follow, and those that nothing follows are
    final, or holds.
    """
    names = ["Ordered", *draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))]
    following: dict[str, set[str]] = {name: set() for name in names}
    holds = set(draw(st.lists(st.sampled_from(names), max_size=1))) - {"Ordered", "Cancelled", "Returned"}
    for n, name in enumerate(names[1:], 1):
        following[draw(st.sampled_from(names[:n]))].add(name)
    for here, there in draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=2)):
        following[here] |= {there} - {here}
    line = draw(st.lists(st.sampled_from([n for n in names if n not in holds]), unique=True, max_size=2))
    text = [f"line = {json.dumps(line)}"]
    for name in names:
        text += [f"[statuses.{name}]", f"next = {json.dumps(sorted(following[name]))}"]
        if name in holds:
            text.append("hold = true")
        elif not following[name] and name not in line[:-1]:
            text.append("final = true")
        if name == "Cancelled" or (name == "Gone" and draw(st.booleans())):
            text.append("gives_stock_back = true")
    return "\n".join(text)
