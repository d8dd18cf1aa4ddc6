"""The form of a text, and words that describe it. The hint comes from the rule that failed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

# Types of the errors that clusterctl's own rules raise.
ERROR = "form"  # the context has `words`
CHOICE = "choice"  # the context has `choices`


@dataclass(frozen=True)
class Form:
    """What a text must look like. Metadata of `Annotated[str, Form(...)]`.

    Attributes:
        pattern: regular expression that the whole text must match.
        words: what the pattern allows; completes "it must be ...".
    """

    pattern: str
    words: str

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def matches(self, text: str) -> bool:
        return re.fullmatch(self.pattern, text, re.ASCII) is not None

    def _check(self, text: str) -> str:
        if not self.matches(text):
            raise PydanticCustomError(ERROR, "it must be {words}", {"words": self.words})
        return text
