"""LaTeX of tables: what would not compile is found."""

import re


def unescaped(text):
    """LaTeX without what is escaped, and the commands of its own."""
    return re.sub(r"\\[&%$#_{}]", "", text)


def check_latex(text):
    """Balanced, escaped, plain ASCII, and every line of a tabular as long as its header."""
    assert text.isascii()
    plain = unescaped(text)
    depth = 0
    for sign in plain:
        depth += (sign == "{") - (sign == "}")
        assert depth >= 0
    assert depth == 0
    open_environments = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", plain):
        if kind == "begin":
            open_environments.append(name)
        else:
            assert open_environments.pop() == name
    assert not open_environments
    assert plain.count("$") % 2 == 0
    bodies = re.findall(r"\\begin\{tabular\}\{(lr*)\}(.*?)\\end\{tabular\}", plain, re.DOTALL)
    assert len(bodies) == 2
    for body in bodies:
        lines = [line for line in body[1].splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
        assert len(lines) > 1
        assert {line.count("&") + 1 for line in lines} == {len(body[0])}
        assert not re.search(r"[#_]", body[1])
    # A percent sign ends a line, as ours does after \resizebox, or opens the first line.
    assert all(line.startswith("% ") or "%" not in line.removesuffix("%") for line in plain.splitlines())
