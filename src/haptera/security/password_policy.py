"""The rules of a new password: long, and nothing that is guessed first.

Length is the only strength that a rule can ask for (NIST SP 800-63B): classes of characters are met by habit, and
passwords that have to be changed are counted up. A password that is there already is judged by none of the rules.
"""

from __future__ import annotations

from typing import Final

from haptera.access_rules import PASSWORD_SIZE_MAX, is_password
from haptera.errors import Code, Failure, failure

#: Characters of a new password: with 600,000 iterations even a random one of ten letters is guessed in years of many
#: machines, and people's are not random.
LENGTH_MIN: Final = 12
#: Different characters of a new password: fewer are one key held down, or a pattern of a few.
DIFFERENT_MIN: Final = 5
#: Characters from which on a name that is part of a password gives much of it away.
_NAME_LENGTH_MIN: Final = 4


def password_refusal(password: str, name: str) -> Failure | None:
    """Return why a password cannot be the new one of a user (2006), or None. The password is not repeated."""
    rule = _broken_rule(password, name)
    return None if rule is None else failure(Code.PASSWORD_POLICY, {"rule": rule})


def _broken_rule(password: str, name: str) -> str | None:
    if not is_password(password):
        return f"it is 1 to {PASSWORD_SIZE_MAX} bytes of UTF-8 without NUL"
    if len(password) < LENGTH_MIN:
        return f"it has at least {LENGTH_MIN} characters"
    if len(set(password)) < DIFFERENT_MIN:
        return f"it has at least {DIFFERENT_MIN} different characters"
    if len(name) >= _NAME_LENGTH_MIN and name.casefold() in password.casefold():
        return "it does not hold the user's name"
    return None
