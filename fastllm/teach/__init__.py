"""The checks behind the exercises of the course in ``notebooks/``.

    from fastllm.teach import check, hint

    check("1.1", 7)     # 7 is your answer; the reply says whether it is right, and if not, where to look
    hint("1.1")         # a first hint; once more for the next one

Truths are computed by the library when they are asked for (or kept as salted hashes), so there is nothing here to look
up. Everything runs on the bundled demo model, without a network.
"""

from __future__ import annotations

from fastllm.teach._check import Verdict, check, exercises, hint

__all__ = ["Verdict", "check", "exercises", "hint"]
