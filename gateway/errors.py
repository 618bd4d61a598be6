"""Replies to peers and failures that carry their own answer.

An error carries its answer with it: whether it is worth trying again, the text a stranger may read, and the reason
that only our log may know. What is unknown is retryable: a fault of ours must never become a permanent refusal.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import wording


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply.

    The class digit of the enhanced code (RFC 3463) is derived from the reply code, never given beside it, so that the
    two cannot disagree. `detail` is the `subject.detail` part, for example `7.1`; empty for replies that carry no
    enhanced code (greeting, EHLO, 354, 334).
    """

    code: int
    text: str
    detail: str = ""

    @property
    def enhanced(self) -> str:
        """The enhanced status code, `5.7.1`, or an empty string when there is none."""
        return f"{self.code // 100}.{self.detail}" if self.detail else ""

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def accepted(self) -> bool:
        return 200 <= self.code < 300

    def lines(self) -> tuple[str, ...]:
        """The reply as SMTP lines without CRLF, multi-line where `text` has line breaks."""
        prefix = f"{self.enhanced} " if self.detail else ""
        rows = [prefix + row for row in self.text.split("\n")]
        return tuple(f"{self.code}{'-' if n < len(rows) - 1 else ' '}{row}" for n, row in enumerate(rows))

    def __str__(self) -> str:
        return "\n".join(self.lines())


#: What a peer reads when we fail in a way we did not foresee: nothing of the inside, and worth another try.
LOCAL_ERROR = Reply(451, "Local error in processing, please try again later", "3.0")


class Failure(Exception):
    """Something that could not be done now or ever.

    public: what a peer or user may read. private: for the log only. retryable: unknown means True.
    """

    def __init__(self, public: str, private: str = "", *, retryable: bool = True) -> None:
        super().__init__(public)
        self.public = public
        self.private = private
        self.retryable = retryable


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in a configuration file, with place and cure. `line` and `column` count from 1; 0 is unknown.

    `text` is English; as text for a person the Vietnamese comes first and the English below it."""

    file: str
    line: int
    column: int
    text: str

    @property
    def place(self) -> str:
        """`file:line:column`, as far as it is known."""
        return (
            self.file
            + (f":{self.line}" if self.line else "")
            + (f":{self.column}" if self.line and self.column else "")
        )

    @property
    def vi(self) -> str:
        """The Vietnamese of `text`; empty when there is none."""
        return wording.vietnamese(self.text)

    def __str__(self) -> str:
        told = self.vi
        return f"{self.place}: {told}\n    {self.text}" if told else f"{self.place}: {self.text}"


class ConfigError(Exception):
    """A configuration that cannot be used: every problem found, not only the first. Exit code 2."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
